"""Verification of pairs of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from ..metrics import EqualErrorRate, PropagateNaN
from ..models import SiameseModel
from ..models.siamese import SiameseModelArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from .base import LR, TransferModule


@forwards(SiameseModelArgs, to=SiameseModel)
class PairClassifier(TransferModule):
    """Classifies pairs of images as different or the same, by a `SiameseModel` with two outputs.

    A batch is the first images, the second images, and targets `(b,)`: whether each pair is the same, as bools or as 0
    and 1 of any type. Predictions are the probabilities `(b, 2)` of `different` and `same`. Accuracy, the area under
    the ROC curve and the equal error rate are logged in validation and test.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        label_smoothing: Fraction of each target that is spread evenly over both classes (Szegedy 2016).
        pretrained: Whether the encoder gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of the encoder, in place of a download.
        lr: Learning rate: a number, a pair that is spaced geometrically from the first parameter group to the last,
            `(None, b)` for b in the last group and b / 10 in the others, or one number per group.
        optimizer: Function that creates the optimizer from parameter groups; by default AdamW with fastai's constants.
        lr_scheduler: Function that creates a learning rate scheduler from the optimizer, stepped once per epoch.
        splitter: Function from the model to its parameter groups, in place of `model.param_groups()`; fastai's
            `splitter`.
        in_channels: Channels of the images; by default the encoder's own, 3 for pretrained weights.
    """

    class_names = ("different", "same")

    def __init__(
        self,
        encoder: str,
        *,
        label_smoothing: float = 0.0,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        in_channels: int | None = None,
        **architecture: Unpack[SiameseModelArgs],
    ) -> None:
        architecture = with_defaults(SiameseModelArgs, architecture, SiameseModel)
        model = SiameseModel(
            encoder,
            head=None,
            num_outputs=2,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            **architecture,
        )
        metrics: dict[str, Metric] = {
            "accuracy": PropagateNaN(MulticlassAccuracy(2, average="micro")),
            "auroc": PropagateNaN(MulticlassAUROC(2)),
            "equal_error_rate": EqualErrorRate(),
        }
        super().__init__(
            model,
            _PairLoss(label_smoothing=label_smoothing),
            metrics,
            lr=lr,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            splitter=splitter,
        )
        self.save_hyperparameters()

    def activation(self, outputs: Tensor) -> Tensor:
        """Converts logits `(b, 2)` to probabilities."""
        return outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if targets have another shape, or other values than 0 and 1."""
        if target.shape != outputs.shape[:1]:
            raise ValueError(f"Expected a target for each of {len(outputs)} pairs, but got {tuple(target.shape)}")
        if ((target != 0) & (target != 1)).any():
            raise ValueError(f"Expected targets of 0 and 1, but got {torch.unique(target).tolist()}")

    def metric_target(self, target: Tensor) -> Tensor:
        """Converts targets of any type to class indices."""
        return target.long()


class _PairLoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits `(b, 2)` and targets `(b,)` of any type."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return super().forward(outputs, target.long())
