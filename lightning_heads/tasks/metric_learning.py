"""Metric learning of image embeddings."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from ..encoders import Encoder
from ..encoders.encoder import EncoderArgs, check_images
from ..losses.metric_learning import ContrastiveLoss, NTXentLoss, TripletLoss
from ..metrics.embedding_verification import EmbeddingEqualErrorRate, VerificationAccuracy, VerificationThreshold
from ..metrics.retrieval import RecallAtK, RetrievalMAP
from ..models import ImageModel
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from ..utils.modules import eval_mode
from ..utils.tensors import at_least_float32
from .base import LR, TransferModule

Loss = Literal["triplet", "contrastive", "nt_xent"]


@forwards(EncoderArgs, to=Encoder)
class ImageEmbedder(TransferModule):
    """Metric learning: maps images to embeddings of unit length, whose cosine similarity is high within a class.

    The head is average pooling, batch normalization and one linear layer. Targets are class indices `(b,)`; those of
    evaluation may be of other classes than training. Predictions are embeddings `(b, embedding_size)`. `recall_at_1`,
    `recall_at_5` and `mean_average_precision` are logged in validation and test, where each image of the data set is a
    query among all others.

    `verify` tells whether two images are of one class. Its threshold is the attribute `threshold`, which validation
    sets to the most accurate one, and checkpoints have. `equal_error_rate` and `accuracy` of verification are logged as
    well, of all pairs of images, where those of one class count as much as those of different classes. The accuracy of
    validation is that at the best threshold, that of test at the `threshold`, or the best one if there is none.

    The losses are of the pairs in a batch, which needs several images of each class: set `images_per_class` of the data
    module. The loss in validation therefore depends on the order of the images; select checkpoints by another metric.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        embedding_size: Dimension of the embeddings.
        loss: Loss: `triplet` (`TripletLoss`), `contrastive` (`ContrastiveLoss`) or `nt_xent` (`NTXentLoss`).
        margin: Margin of the triplet loss, by default 0.2, or of pairs of different classes in the contrastive loss, by
            default 1.
        temperature: Temperature of the NT-Xent loss, by default 0.07.
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
        ValueError: If the loss is unknown, has no `margin` or `temperature` that is given, or the encoder cannot be
            built.
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
        **backbone: Unpack[EncoderArgs],
    ) -> None:
        if embedding_size < 1:
            raise ValueError(f"Expected `embedding_size` to be at least 1, but got {embedding_size}")
        criterion = _criterion(loss, margin, temperature)
        backbone = with_defaults(EncoderArgs, backbone, Encoder)
        model = ImageModel(
            encoder,
            embedding_size,
            pretrained=pretrained,
            weights=weights,
            head=None,
            y_range=None,
            lin_ftrs=[],
            ps=0.0,
            concat_pool=False,
            in_channels=in_channels,
            **backbone,
        )
        metrics: dict[str, Metric] = {
            "recall_at_1": RecallAtK(1),
            "recall_at_5": RecallAtK(5),
            "mean_average_precision": RetrievalMAP(),
            "equal_error_rate": EmbeddingEqualErrorRate(),
            "accuracy": VerificationAccuracy(),
        }
        super().__init__(
            model, criterion, metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.save_hyperparameters()
        self.threshold: float | None = None
        self._best_threshold = VerificationThreshold()

    def activation(self, outputs: Tensor) -> Tensor:
        """Normalizes embeddings to unit length."""
        return F.normalize(at_least_float32(outputs), dim=1)

    def verify(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns whether each pair of two batches of images in 0..1, `(b, c, h, w)`, is of one class, bool `(b,)`.

        Embeddings are computed in evaluation mode, without gradients.

        Raises:
            ValueError: If images are not `(b, c, h, w)` in about 0..1, or there is no threshold, as there was no
                validation with pairs of one class and of different classes.
        """
        for images in (first, second):
            if not isinstance(images, Tensor) or images.ndim != 4:
                what = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ValueError(f"Expected batches of images (b, c, h, w), but got {what}")
        check_images(self.model, first, second)
        if self.threshold is None:
            raise ValueError("Expected a threshold, which validation sets; validate the task, or set its `threshold`")
        with eval_mode(self), torch.no_grad():
            return (self.predict(first) * self.predict(second)).sum(dim=1) > self.threshold

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        outputs = super().validation_step(batch, batch_idx)
        self._best_threshold.update(outputs["predictions"], outputs["target"])
        return outputs

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._best_threshold.reset()

    def on_validation_epoch_end(self) -> None:
        """Sets the threshold, unless the images have no pair of one class, or no pair of different classes."""
        super().on_validation_epoch_end()
        if not self._best_threshold.update_called:  # by a step of a subclass
            return
        threshold = float(self._best_threshold.compute())
        if math.isfinite(threshold) and not self.trainer.sanity_checking:
            self.threshold = threshold

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        cast(VerificationAccuracy, self.test_metrics["accuracy"]).threshold = self.threshold

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["threshold"] = self.threshold

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.threshold = checkpoint.get("threshold")

    def check_batch(self, outputs: Tensor, target: Tensor, batch_idx: int) -> None:
        """Checks the target, and warns if the first training batch of an epoch has no two images of one class."""
        super().check_batch(outputs, target, batch_idx)
        if self.training and batch_idx == 0 and len(torch.unique(target)) == len(target):
            warnings.warn(
                f"Expected several images of a class in a batch, but the {len(target)} of this epoch's first batch are "
                "all of different classes, without a positive pair: set `images_per_class` of the data module",
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
