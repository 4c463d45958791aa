"""A U-Net trains in mixed precision as in full precision."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.models import DynamicUnet
from tests.helpers import trainer_for

STEPS, LAST = 40, 10


class Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        self.values.append(float(outputs["loss"]))


def _losses(folder: Path, decoder: Any, precision: Any, accelerator: str = "cpu") -> torch.Tensor:
    """Returns the loss of each step in training to segment the bright part of noisy images."""
    torch.manual_seed(0)
    masks = torch.nn.functional.interpolate(torch.rand(16, 1, 4, 4), (16, 16), mode="bilinear") > 0.5
    images = (0.3 + 0.3 * masks + 0.1 * torch.randn(16, 3, 16, 16)).clamp(0, 1)
    widths = (3, 8, 16, 16)  # few, as a CPU is slow in bfloat16
    stages = [
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
        for before, after in pairwise(widths)
    ]
    model = DynamicUnet(lh.Encoder(nn.Sequential(*stages)), 2, decoder=decoder)
    task = lh.TransferModule(model, nn.CrossEntropyLoss(), lr=3e-3)
    losses = Losses()
    trainer = trainer_for(
        folder, [losses], -1, max_steps=STEPS, precision=precision, accelerator=accelerator, devices=1
    )
    trainer.fit(task, DataLoader(TensorDataset(images, masks[:, 0].long()), 4))
    assert all(p.isfinite().all() for p in model.parameters())
    return torch.tensor(losses.values)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("decoder", ["light", "fastai"])
@pytest.mark.parametrize(
    ("precision", "accelerator"),
    [
        ("bf16-mixed", "cpu"),
        pytest.param(
            "16-mixed", "gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
        ),
    ],
)
def test_follows_full_precision(decoder: Any, precision: str, accelerator: str, tmp_path: Path) -> None:
    full = _losses(tmp_path, decoder, "32-true", accelerator)
    mixed = _losses(tmp_path, decoder, precision, accelerator)
    assert len(full) == len(mixed) == STEPS
    assert mixed.isfinite().all()
    assert full[-LAST:].mean() < 0.5 * full[:3].mean()  # it learns
    torch.testing.assert_close(mixed[-LAST:].mean(), full[-LAST:].mean(), atol=0.03, rtol=0.15)
    torch.testing.assert_close(mixed[:5], full[:5], atol=0.05, rtol=0.05)
