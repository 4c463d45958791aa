"""Classification and regression of single images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelF1Score,
)

from ..models import ImageModel
from ..optim.param_groups import Splitter
from .base import LR, TransferModule
from .class_names import check_classes, names_from_data, plain_floats


class ImageClassifier(TransferModule):
    """Classifies images: a pretrained encoder with fastai's head.

    Targets are class indices `(b,)`, or class probabilities `(b, num_classes)`; with `multilabel`, `(b, num_classes)`
    of 0 and 1. Predictions are probabilities `(b, num_classes)`. It logs accuracy and F1 (macro)
    for evaluation.

    Args:
        encoder: An architecture's name; see `Encoder`.
        num_classes: Number of classes.
        multilabel: Whether an image has any number of the classes.
        label_smoothing: Share of each target that is spread over all classes (Szegedy 2016).
        class_weights: Weight of each class in the loss.
        class_names: Names of the classes, kept in the checkpoint; by default those of the data module in `fit`.
        pretrained: Whether the encoder gets its pretrained weights.
        weights: A local file with them; see `Encoder`.
        lr: See `TransferModule`.
        optimizer: See `TransferModule`.
        lr_scheduler: See `TransferModule`.
        splitter: See `TransferModule`.
        lin_ftrs: Widths of the head's hidden layers; see `create_head`.
        ps: Dropout probabilities of the head.
        concat_pool: Whether the head pools by maximum and average, or by average alone.
        in_channels: Channels of the images.
        image_size: Size that a backbone of fixed size is built for.
        drop_path_rate: Stochastic depth of a timm backbone.
        hypercolumns: Whether the head sees the encoder's maps of all scales; see `Encoder`.

    Raises:
        ValueError: If `num_classes`, `class_names` and `class_weights` disagree, or the encoder cannot be built.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        multilabel: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        lin_ftrs: Sequence[int] | None = None,
        ps: float | list[float] = 0.5,
        concat_pool: bool = True,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        hypercolumns: bool = False,
    ) -> None:
        check_classes(num_classes, multilabel, class_weights, class_names)
        class_weights = plain_floats(class_weights)
        model = ImageModel(
            encoder,
            num_classes,
            pretrained=pretrained,
            weights=weights,
            lin_ftrs=lin_ftrs,
            ps=ps,
            concat_pool=concat_pool,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            hypercolumns=hypercolumns,
        )
        criterion = (
            _SmoothedBCE(label_smoothing) if multilabel else nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        )
        if class_weights is not None:
            # hyperparameters hold them: as state they would overrule others on loading
            criterion.register_buffer("weight", torch.tensor(class_weights), persistent=False)
        metrics = _multilabel_metrics(num_classes) if multilabel else _multiclass_metrics(num_classes)
        super().__init__(
            model, criterion, metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.multilabel = multilabel
        self.class_names = [str(i) for i in range(num_classes)] if class_names is None else [*class_names]
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def setup(self, stage: str) -> None:
        """Compares the classes with the data's, and takes their names from it where none were given."""
        if stage != "predict":
            self.class_names = names_from_data(self, self.class_names)

    def activation(self, outputs: Tensor) -> Tensor:
        """Turns logits `(b, num_classes)` into probabilities."""
        return outputs.sigmoid() if self.multilabel else outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses targets of another kind than the task's."""
        if self.multilabel or target.is_floating_point():
            if target.shape != outputs.shape:
                kind = "`multilabel` targets" if self.multilabel else "class probabilities"
                raise ValueError(f"Expected {kind} of {tuple(outputs.shape)}, but got {tuple(target.shape)}")
            if not self.multilabel and ((target.sum(dim=1) - 1).abs() > 1e-2).any():
                raise ValueError("Expected class probabilities that sum to 1, but got others; is this `multilabel`?")

    def metric_target(self, target: Tensor) -> Tensor:
        """Turns class probabilities into the most probable class, where that is what the targets are."""
        if self.multilabel:
            return (target > 0.5).long()
        return target.argmax(dim=1) if target.is_floating_point() else target


class _SmoothedBCE(nn.BCEWithLogitsLoss):
    """Binary cross-entropy of logits and targets `(b, c)` with smoothed labels and a weight for each class."""

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        smooth = target.to(outputs.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return super().forward(outputs, smooth)


def _multiclass_metrics(n: int) -> dict[str, Metric]:
    return {
        "accuracy": MulticlassAccuracy(n, average="micro"),
        "f1_score": MulticlassF1Score(n, average="macro"),
    }


def _multilabel_metrics(n: int) -> dict[str, Metric]:
    return {
        "accuracy": MultilabelAccuracy(n),
        "f1_score": MultilabelF1Score(n),
    }
