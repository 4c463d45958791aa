"""What a task's outputs stand for, by the attributes that ours have and others may."""

import lightning as L


def output_names(pl_module: L.LightningModule, count: int, default: str) -> list[str]:
    """Returns the task's `class_names`, or `default_0` and on."""
    return [*(getattr(pl_module, "class_names", None) or (f"{default}_{i}" for i in range(count)))]


def has_labels(pl_module: L.LightningModule, count: int) -> bool:
    """Tells whether each of `count` channels is a label of its own, rather than all together one class."""
    return count == 1 or bool(getattr(pl_module, "multilabel", False))
