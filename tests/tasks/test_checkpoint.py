"""Checkpoints of other classes."""

from typing import Any

import pytest

import lightning_heads as lh
from lightning_heads.tasks.checkpoint import check_class, equal


class Named(lh.ImageClassifier):
    pass


def _saved(task: lh.TransferModule) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


def test_a_checkpoint_of_another_class_says_of_which() -> None:
    checkpoint = _saved(lh.ImageClassifier("test_resnet", 2, pretrained=False))
    task = lh.ImageRegressor("test_resnet", 2, pretrained=False)
    message = "a checkpoint of lightning_heads.ImageRegressor, but got one of lightning_heads.ImageClassifier"
    with pytest.raises(ValueError, match=message):
        task.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=message):
        lh.TestTimeAugmentation(task).on_load_checkpoint(checkpoint)


def test_base_classes_subclasses_and_unknown_classes_are_accepted() -> None:
    checkpoint = _saved(lh.ImageClassifier("test_resnet", 2, pretrained=False))
    check_class(Named, checkpoint)
    check_class(lh.ImageClassifier, checkpoint | {"class_path": f"{__name__}.Named"})
    check_class(lh.ImageRegressor, checkpoint | {"class_path": "not_imported.Task"})
    check_class(lh.ImageRegressor, {"state_dict": {}})


def test_equal_hyperparameters() -> None:
    assert equal((1e-3, None), [1e-3, None])
    assert equal(None, None)
    assert not equal([1.0], [2.0])
    assert not equal(None, [1.0])
