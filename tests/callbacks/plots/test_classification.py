from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import lightning_heads as lh
from lightning_heads.callbacks.outputs import EvaluationOutputs
from lightning_heads.callbacks.plots.classification import class_targets


def test_pictures_are_drawn(class_folder: Path, tmp_path: Path) -> None:
    data = lh.ImageFolderData(class_folder, test_fraction=0.3, image_size=32, batch_size=4, num_workers=0)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_names=data.class_names)
    callbacks = [lh.ConfusionMatrixPlot(tmp_path), lh.WorstPredictionsPlot(tmp_path, count=5)]
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", callbacks=callbacks)
    trainer.test(task, data, verbose=False)
    for name in ("confusion_matrix.png", "worst_predictions.png"):
        picture = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert min(picture.shape) > 200
        assert picture.std() > 10


def _collected(targets: torch.Tensor | None) -> EvaluationOutputs:
    return EvaluationOutputs([0, 1], torch.eye(2), targets, None, ["a", "b"], "classes", Path())


def test_class_targets_of_indices_and_probabilities() -> None:
    assert class_targets(_collected(torch.tensor([1, 0]))).tolist() == [1, 0]
    assert class_targets(_collected(torch.tensor([[0.2, 0.8], [0.9, 0.1]]))).tolist() == [1, 0]


@pytest.mark.parametrize("targets", [None, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([0.5, 1.5])])
def test_targets_without_one_class_per_sample_are_refused(targets: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="one class per sample to plot"):
        class_targets(_collected(targets))
