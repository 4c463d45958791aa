from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import lightning_heads as lh
from lightning_heads.callbacks.outputs import EvaluationOutputs
from lightning_heads.callbacks.plots.classification import class_targets
from tests.helpers import ExperimentLogger, ImageLogger, trainer_for


@pytest.mark.parametrize(("function", "prefix"), [("test", ""), ("validate", "val_")])
def test_pictures_are_drawn_and_logged(class_folder: Path, tmp_path: Path, function: str, prefix: str) -> None:
    data = lh.ImageFolderData(class_folder, test_fraction=0.3, image_size=32, batch_size=4, num_workers=0)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_names=data.class_names)
    callbacks = [lh.ConfusionMatrixPlot(tmp_path), lh.WorstPredictionsPlot(tmp_path, count=5)]
    loggers = [ImageLogger(), ExperimentLogger(), CSVLogger(tmp_path)]
    getattr(trainer_for(tmp_path, callbacks, logger=loggers), function)(task, data, verbose=False)
    names = [f"{prefix}confusion_matrix", f"{prefix}worst_predictions"]
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == names
    for name in names:
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert min(picture.shape) > 200
        assert picture.std() > 10
    assert loggers[0].tags == loggers[1].tags == [(name, 0) for name in names]


class Digits(Dataset[Any]):
    """Sample i is an image whose pixels are i / 4, of class i % 2."""

    paths = ("0.png", "$1$.png", "caf\udce9.png", "3.png", "4.png")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 8, 8), i / 4), i % 2


class Classifier(lh.TransferModule):
    class_names = ("$a$", "caf\udce9")

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.CrossEntropyLoss())

    def activation(self, outputs: torch.Tensor) -> torch.Tensor:
        """Is always right, and the less sure the brighter the image."""
        brightness = outputs[:, 0]
        right = 1 - brightness * 0.3
        odd = (brightness * 4).round() % 2 == 1
        return torch.stack([torch.where(odd, 1 - right, right), torch.where(odd, right, 1 - right)], dim=1)


class Drawn(lh.WorstPredictionsPlot):
    order: list[str]

    def write(self, collected: EvaluationOutputs) -> Path:
        worst = collected.predictions.max(dim=1).values.argsort().tolist()
        self.order = [collected.files(i)[0] for i in worst]
        return super().write(collected)


def test_the_worst_predictions_are_those_of_their_files(tmp_path: Path) -> None:
    plot = Drawn(tmp_path, 4)
    data = Digits()
    trainer = trainer_for(tmp_path, [plot, lh.ConfusionMatrixPlot(tmp_path)])
    trainer.test(Classifier(), DataLoader(data, 2, sampler=[2, 4, 0, 1]), verbose=False)
    assert plot.order == [data.paths[i] for i in (4, 2, 1, 0)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["confusion_matrix.png", "worst_predictions.png"]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([Digits()[i] for i in range(5)])


def test_images_that_cannot_be_read_again_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="map-style data set, from which the worst images are read again"):
        trainer_for(tmp_path, [lh.WorstPredictionsPlot()]).test(Classifier(), DataLoader(Stream(), 2), verbose=False)


def _collected(targets: torch.Tensor | None) -> EvaluationOutputs:
    return EvaluationOutputs([0, 1], torch.eye(2), targets, None, ["a", "b"], "classes", Path())


def test_class_targets_of_indices_and_probabilities() -> None:
    assert class_targets(_collected(torch.tensor([1, 0]))).tolist() == [1, 0]
    assert class_targets(_collected(torch.tensor([[0.2, 0.8], [0.9, 0.1]]))).tolist() == [1, 0]


@pytest.mark.parametrize("targets", [None, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([0.5, 1.5])])
def test_targets_without_one_class_per_sample_are_refused(targets: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="one class per sample to plot"):
        class_targets(_collected(targets))
