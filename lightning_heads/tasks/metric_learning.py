"""Embeddings of images, near for one class and far for others."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from ..losses.metric_learning import ContrastiveLoss, NTXentLoss, TripletLoss
from ..metrics.retrieval import RecallAtK, RetrievalMAP
from ..models import ImageModel
from ..optim.param_groups import Splitter
from ..utils.tensors import at_least_float32
from .base import LR, TransferModule

Loss = Literal["triplet", "contrastive", "nt_xent"]


class ImageEmbedder(TransferModule):
    """Turns images into vectors of unit length whose cosine says how alike they are: metric learning.

    The head is average pooling, batch normalization and one linear layer. Targets are class indices `(b,)`; classes
    need not be those of training. Predictions are embeddings `(b, embedding_size)`. For evaluation it logs
    `recall_at_1`, `recall_at_5` and `mean_average_precision`, where each image of the whole set searches all others.

    All losses are over the pairs of a batch, which needs several images of a class: `images_per_class` of the data
    module. The evaluation's loss therefore depends on the order of the images; choose checkpoints by another metric.

    Args:
        encoder: An architecture's name; see `Encoder`.
        embedding_size: Length of the vectors.
        loss: `TripletLoss`, `ContrastiveLoss` or `NTXentLoss`.
        margin: Margin of the triplet loss, or that of pairs of two classes in the contrastive one; by default theirs.
        temperature: Temperature of the NT-Xent loss; by default its own.
        pretrained: Whether the encoder gets its pretrained weights.
        weights: A local file with them; see `Encoder`.
        lr: See `TransferModule`.
        optimizer: See `TransferModule`.
        lr_scheduler: See `TransferModule`.
        splitter: See `TransferModule`.
        in_channels: Channels of the images.
        image_size: Size that a backbone of fixed size is built for.
        drop_path_rate: Stochastic depth of a timm backbone.

    Raises:
        ValueError: If the loss is unknown or has no such setting, or the encoder cannot be built.
    """

    def __init__(
        self,
        encoder: str,
        embedding_size: int = 128,
        *,
        loss: Loss = "triplet",
        margin: float | None = None,
        temperature: float | None = None,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        if embedding_size < 1:
            raise ValueError(f"Expected `embedding_size` to be at least 1, but got {embedding_size}")
        criterion = _criterion(loss, margin, temperature)
        model = ImageModel(
            encoder,
            embedding_size,
            pretrained=pretrained,
            weights=weights,
            lin_ftrs=[],
            ps=0.0,
            concat_pool=False,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
        )
        metrics: dict[str, Metric] = {
            "recall_at_1": RecallAtK(1),
            "recall_at_5": RecallAtK(5),
            "mean_average_precision": RetrievalMAP(),
        }
        super().__init__(
            model, criterion, metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def activation(self, outputs: Tensor) -> Tensor:
        """Scales vectors to unit length."""
        return F.normalize(at_least_float32(outputs), dim=1)

    def check_batch(self, outputs: Tensor, target: Tensor, batch_idx: int) -> None:
        """Warns where an epoch's first training batch has no two images of a class."""
        super().check_batch(outputs, target, batch_idx)
        if self.training and batch_idx == 0 and len(torch.unique(target)) == len(target):
            warnings.warn(
                f"Expected several images of a class in a batch, but the {len(target)} of this epoch's first are all "
                "of different classes, so that no loss brings any together: set `images_per_class` of the data module",
                stacklevel=2,
            )


def _criterion(loss: Loss, margin: float | None, temperature: float | None) -> nn.Module:
    if loss not in ("triplet", "contrastive", "nt_xent"):
        raise ValueError(f"Expected `loss` to be triplet, contrastive or nt_xent, but got {loss!r}")
    if loss == "nt_xent":
        if margin is not None:
            raise ValueError(f"Expected no `margin` with the nt_xent loss, but got {margin}")
        return NTXentLoss() if temperature is None else NTXentLoss(temperature)
    if temperature is not None:
        raise ValueError(f"Expected no `temperature` with the {loss} loss, but got {temperature}")
    if loss == "triplet":
        return TripletLoss() if margin is None else TripletLoss(margin)
    return ContrastiveLoss() if margin is None else ContrastiveLoss(negative_margin=margin)
