"""Checks of the number, the weights and the names of a task's classes."""

from collections.abc import Sequence
from typing import Any


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
    """Converts numbers to Python's, of which torch makes tensors of its default type."""
    return None if values is None else [float(value) for value in values]


def take_class_names(task: Any) -> None:
    """Checks a task's classes against those of the trainer's data module, and takes their names if none were given.

    Args:
        task: A task that is attached to a trainer, with `class_names` as an attribute and a hyperparameter.

    Raises:
        ValueError: If the data module has another number of classes, or other names.
    """
    names = getattr(getattr(task.trainer, "datamodule", None), "class_names", None)
    if names is None:
        return
    if len(names) != len(task.class_names):
        raise ValueError(f"Expected data with {len(task.class_names)} classes, as the model has, but got {len(names)}")
    if task.hparams.get("class_names") is None:
        task.class_names = [*names]
    elif [*names] != task.class_names:
        raise ValueError(f"Expected data with the model's classes {task.class_names}, but got {[*names]}")
