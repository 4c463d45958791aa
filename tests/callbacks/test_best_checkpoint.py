import logging
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from tests.helpers import Net, X, Y, trainer_for


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, r"\(the last, as no metric is monitored; pass `ModelCheckpoint` with `monitor`, such as val_loss\)"),
        ({"monitor": "val_loss"}, r"\(lowest val_loss, 0\.\d+\)"),
        ({"monitor": "val_loss", "mode": "max"}, r"\(highest val_loss, 0\.\d+\)"),
    ],
)
def test_the_best_checkpoint_is_logged(
    tmp_path: Path, settings: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "saved", **settings)
    trainer = trainer_for(tmp_path, [checkpoint], 2, enable_checkpointing=True)
    loader = DataLoader(TensorDataset(X, Y), 4)
    with caplog.at_level(logging.INFO):
        trainer.fit(lh.TransferModule(Net(), nn.CrossEntropyLoss()), loader, loader)
    (message,) = [text for text in caplog.messages if text.startswith("Checkpoint of")]
    assert checkpoint.best_model_path in message
    assert re.search(reason, message)


def test_nothing_is_logged_without_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trainer_for(tmp_path, [], 1).fit(
            lh.TransferModule(Net(), nn.CrossEntropyLoss()), DataLoader(TensorDataset(X, Y), 4)
        )
    assert "ckpt_path" not in caplog.text
