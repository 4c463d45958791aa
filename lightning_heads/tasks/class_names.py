"""Checks of the number, the weights and the names of a task's classes."""

from collections.abc import Sequence

import lightning as L


def check_classes(
    num_classes: int, multilabel: bool, weights: Sequence[float] | None, names: Sequence[str] | None
) -> None:
    """Raises ValueError unless the number of classes, their weights and their names agree."""
    if num_classes < (1 if multilabel else 2):
        raise ValueError(f"Expected `num_classes` to be at least {1 if multilabel else 2}, but got {num_classes}")
    for argument, value in (("class_weights", weights), ("class_names", names)):
        if value is not None and len(value) != num_classes:
            raise ValueError(f"Expected `{argument}` to have {num_classes} entries, one a class, but got {len(value)}")


def plain_floats(values: Sequence[float] | None) -> list[float] | None:
    """Converts numbers to Python's, since a checkpoint with NumPy's is not loaded with `weights_only=True`."""
    return None if values is None else [float(value) for value in values]


def names_from_data(task: L.LightningModule, class_names: list[str]) -> list[str]:
    """Checks a task's classes against those of the trainer's data module, and returns their names.

    If the hyperparameters of the task have no names, those of the data module are stored in them.

    Args:
        task: A task that is attached to a trainer, with `class_names` among its hyperparameters.
        class_names: Current names of the task's classes.

    Raises:
        ValueError: If the data module has another number of classes, or other names.
    """
    names = getattr(getattr(task.trainer, "datamodule", None), "class_names", None)
    if names is None:
        return class_names
    if len(names) != len(class_names):
        raise ValueError(f"Expected data with {len(class_names)} classes, as the model has, but got {len(names)}")
    if task.hparams.get("class_names") is None:
        task.hparams["class_names"] = [*names]
    elif [*names] != class_names:
        raise ValueError(f"Expected data with the model's classes {class_names}, but got {[*names]}")
    return [*names]
