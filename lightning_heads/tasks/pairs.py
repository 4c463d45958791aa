"""Verification of pairs of images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from ..metrics.verification import EqualErrorRate
from ..models import SiameseModel
from ..models.siamese import Comparison
from ..optim.param_groups import Splitter
from .base import LR, TransferModule


class PairClassifier(TransferModule):
    """Tells whether two images show the same: a `SiameseModel` with two outputs.

    A batch is the first images, the second ones, and whether they are the same `(b,)`: bools, 0 and 1 of any type.
    Predictions are the probabilities `(b, 2)` of `different` and `same`. It logs accuracy, the area under the ROC curve
    and the equal error rate for evaluation.

    Args:
        encoder: An architecture's name; see `Encoder`.
        comparison: See `SiameseModel`.
        symmetric: See `SiameseModel`.
        two_pass: See `SiameseModel`.
        label_smoothing: Share of each target that is spread over both classes (Szegedy 2016).
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
    """

    class_names = ("different", "same")

    def __init__(
        self,
        encoder: str,
        *,
        comparison: Comparison = "concatenation",
        symmetric: bool = False,
        two_pass: bool = False,
        label_smoothing: float = 0.0,
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
    ) -> None:
        model = SiameseModel(
            encoder,
            comparison=comparison,
            symmetric=symmetric,
            two_pass=two_pass,
            pretrained=pretrained,
            weights=weights,
            lin_ftrs=lin_ftrs,
            ps=ps,
            concat_pool=concat_pool,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
        )
        metrics: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(2, average="micro"),
            "auroc": MulticlassAUROC(2),
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
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def activation(self, outputs: Tensor) -> Tensor:
        """Turns logits `(b, 2)` into probabilities."""
        return outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses other numbers than 0 and 1, and targets of another shape."""
        if target.shape != outputs.shape[:1]:
            raise ValueError(f"Expected a target for each of {len(outputs)} pairs, but got {tuple(target.shape)}")
        if ((target != 0) & (target != 1)).any():
            raise ValueError(f"Expected targets of 0 and 1, but got {torch.unique(target).tolist()}")

    def metric_target(self, target: Tensor) -> Tensor:
        """Turns what says whether images are the same into class indices."""
        return target.long()


class _PairLoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits `(b, 2)` and targets `(b,)` of any type."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return super().forward(outputs, target.long())
