import csv
import os
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lightning_heads as lh
from tests.helpers import run_processes, trainer_for


def _trainer(folder: Path, **settings: object) -> L.Trainer:
    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, callbacks=[lh.PredictionWriter()], **{**options, **settings})


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [*csv.DictReader(file)]


def test_writes_file_class_and_probabilities(
    class_folder: Path, make_image: Callable[..., Path], tmp_path: Path
) -> None:
    files = [make_image(f"new/{i}.png", seed=i) for i in range(5)]
    data = lh.ImageFolderData(class_folder, predict_root=tmp_path / "new", image_size=32, batch_size=2, num_workers=0)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_names=data.class_names)
    predictions = [p for batch in _trainer(tmp_path).predict(task, data) for p in batch.tolist()]
    rows = _rows(tmp_path / "predictions.csv")
    assert [row["file"] for row in rows] == [str(file) for file in files]
    for row, (bright, dark) in zip(rows, predictions, strict=True):
        assert float(row["bright"]) == pytest.approx(bright, abs=1e-5)
        assert row["class"] == ("bright" if bright > dark else "dark")
        assert float(row["probability"]) == pytest.approx(max(bright, dark), abs=1e-5)
    assert not list(tmp_path.glob("*.partial"))


def test_writes_the_numbers_of_a_regression_in_a_test(class_folder: Path, tmp_path: Path) -> None:
    files = sorted(class_folder.rglob("*.png"))
    table = tmp_path / "table.csv"
    table.write_text(
        "\n".join(["path,x,fold", *(f"{f},{i},{'test' if i % 2 else 'train'}" for i, f in enumerate(files))])
    )
    data = lh.ImageTableData(table, values=["x"], split="fold", image_size=32, batch_size=4, num_workers=0)
    task = lh.ImageRegressor("test_resnet", 1, pretrained=False)
    _trainer(tmp_path).test(task, data, verbose=False)
    rows = _rows(tmp_path / "predictions.csv")
    assert [row["file"] for row in rows] == [str(file) for file in files[1::2]]
    assert [*rows[0]] == ["file", "output_0"]


def test_file_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    class Numbers(Dataset[torch.Tensor]):
        paths = (os.fsdecode(b"caf\xe9.png"), "K\u00fche.png")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: int) -> torch.Tensor:
            return torch.tensor([float(i)])

    task = lh.TransferModule(nn.Identity(), nn.MSELoss())
    task.class_names = [os.fsdecode(b"\xe9t\xe9")]  # type: ignore[assignment]
    _trainer(tmp_path).predict(task, DataLoader(Numbers()))
    rows = [*csv.DictReader((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines())]
    assert [row["file"] for row in rows] == [r"caf\udce9.png", "K\u00fche.png"]
    assert [*rows[0]] == ["file", "class", "probability", r"\udce9t\udce9"]


def _test_and_predict(photos: Path, folder: Path) -> None:
    data = lh.ImageFolderData(
        photos, predict_root=photos, test_fraction=0.25, image_size=32, batch_size=3, num_workers=0
    )
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_names=data.class_names)
    callbacks: list[L.Callback] = [lh.PredictionWriter(), lh.ConfusionMatrixPlot()]
    trainer = trainer_for(folder, callbacks, devices=2, strategy="ddp", logger=CSVLogger(folder))
    trainer.test(task, data, verbose=False)
    trainer.predict(task, data, return_predictions=False)


def test_two_processes_write_every_file_once(class_folder: Path, tmp_path: Path) -> None:
    assert run_processes(_test_and_predict, 2, tmp_path, class_folder, tmp_path) is not None
    rows = _rows(next(tmp_path.rglob("predictions.csv")))
    assert next(tmp_path.rglob("confusion_matrix.png")).stat().st_size > 0
    assert [row["file"] for row in rows] == [str(path) for path in sorted(class_folder.rglob("*.png"))]
