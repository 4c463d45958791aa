"""Classification of images."""

import operator
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

from ..metrics import PropagateNaN
from ..models import ImageModel
from ..models.image import ImageModelArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from .base import LR, TransferModule
from .class_names import check_classes, plain_floats, take_class_names
from .hyperparameters import Hyperparameter


@forwards(ImageModelArgs, to=ImageModel)
class ImageClassifier(TransferModule):
    """Classifies images by a pretrained encoder with fastai's head.

    Targets are class indices `(b,)`, or class probabilities `(b, num_classes)`; with `multilabel`, `(b, num_classes)`
    of 0 and 1. Predictions are probabilities `(b, num_classes)`. Accuracy and F1 (macro) are logged in validation and
    test.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        num_classes: Number of classes.
        multilabel: Whether an image may have any number of classes, of independent probabilities, instead of one.
        label_smoothing: Fraction of each target that is spread evenly over all classes, or with `multilabel` over 0 and
            1 (Szegedy 2016).
        class_weights: Weight of each class in the loss.
        class_names: Names of the classes, saved in the checkpoint; by default those of the data module.
        pretrained: Whether the encoder gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of the encoder, in place of a download.
        lr: Learning rate: a number, a pair that is spaced geometrically from the first parameter group to the last,
            `(None, b)` for b in the last group and b / 10 in the others, or one number per group.
        optimizer: Function that creates the optimizer from parameter groups; by default AdamW with fastai's constants.
        lr_scheduler: Function that creates a learning rate scheduler from the optimizer, stepped once per epoch.
        splitter: Function from the model to its parameter groups, in place of `model.param_groups()`; fastai's
            `splitter`.
        in_channels: Channels of the images; by default the encoder's own, 3 for pretrained weights.

    Raises:
        ValueError: If `num_classes`, `class_names` and `class_weights` disagree, or the encoder cannot be built.
    """

    class_names = Hyperparameter[list[str]]()

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
        in_channels: int | None = None,
        **architecture: Unpack[ImageModelArgs],
    ) -> None:
        num_classes = operator.index(num_classes)  # torchmetrics refuses NumPy's integers
        check_classes(num_classes, multilabel, class_weights, class_names)
        class_weights = plain_floats(class_weights)
        architecture = with_defaults(ImageModelArgs, architecture, ImageModel)
        model = ImageModel(
            encoder,
            num_classes,
            pretrained=pretrained,
            weights=weights,
            head=None,
            y_range=None,
            in_channels=in_channels,
            **architecture,
        )
        criterion = (
            _SmoothedBCE(label_smoothing) if multilabel else nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        )
        if class_weights is not None:
            # not persistent, since weights in a loaded state dict would replace those that the task is built with
            criterion.register_buffer("weight", torch.tensor(class_weights), persistent=False)
        metrics = _multilabel_metrics(num_classes) if multilabel else _multiclass_metrics(num_classes)
        super().__init__(
            model, criterion, metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.multilabel = multilabel
        self.class_names = [str(i) for i in range(num_classes)] if class_names is None else [*class_names]
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Checks the classes against those of the data module, and takes their names from it if none were given."""
        if stage != "predict":
            take_class_names(self)

    def activation(self, outputs: Tensor) -> Tensor:
        """Converts logits `(b, num_classes)` to probabilities."""
        return outputs.sigmoid() if self.multilabel else outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if targets have another shape, or class probabilities do not sum to 1."""
        if self.multilabel or target.is_floating_point():
            if target.shape != outputs.shape:
                kind = "`multilabel` targets" if self.multilabel else "class probabilities"
                raise ValueError(f"Expected {kind} of {tuple(outputs.shape)}, but got {tuple(target.shape)}")
            if not self.multilabel and ((target.sum(dim=1) - 1).abs() > 1e-2).any():
                raise ValueError(
                    "Expected class probabilities that sum to 1, but got other sums; is the task `multilabel`?"
                )

    def metric_target(self, target: Tensor) -> Tensor:
        """Converts class probabilities to the index of the most probable class, and multi-label targets to integers."""
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
        "accuracy": PropagateNaN(MulticlassAccuracy(n, average="micro")),
        "f1_score": PropagateNaN(MulticlassF1Score(n, average="macro")),
    }


def _multilabel_metrics(n: int) -> dict[str, Metric]:
    return {
        "accuracy": PropagateNaN(MultilabelAccuracy(n)),
        "f1_score": PropagateNaN(MultilabelF1Score(n)),
    }
