"""Verification of pairs of images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from ..losses.verification import PairLoss
from ..metrics import EqualErrorRate, PropagateNaN
from ..models import SiameseModel
from ..models.siamese import Comparison, SiameseModelArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from ..utils.modules import uncompiled
from .base import LR, TransferModule


@forwards(SiameseModelArgs, to=SiameseModel)
class PairClassifier(TransferModule):
    """Classifies pairs of images as different or the same, by a `SiameseModel` with two outputs.

    A batch is the first images, the second images, and targets `(b,)`: whether each pair is the same, as bools or as 0
    and 1 of any type. Predictions are the probabilities `(b, 2)` of `different` and `same`. Accuracy, the area under
    the ROC curve and the equal error rate are logged in validation and test.

    By default images are compared by the cosine similarity of their embeddings. The training loss is then that of all
    pairs that the images of a batch form, if the batch has their class indices `(b, 2)` last, as those of `PairData`
    have for pairs that are drawn; otherwise, and in evaluation, it is the cross-entropy of the given pairs. The model
    of fastai's book has `comparison="concatenation"`.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        comparison: How the images of a pair are compared: by the `cosine` similarity of their embeddings, or by a head
            on the `concatenation` of their features, their absolute `difference`, their `product`, or `all` of these.
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
        comparison: Comparison = "cosine",
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
            comparison=comparison,
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
            PairLoss(label_smoothing=label_smoothing),
            metrics,
            lr=lr,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            splitter=splitter,
        )
        self.save_hyperparameters()

    @property
    def trains_on_all_pairs(self) -> bool:
        """Whether the training loss is that of all pairs of a batch, if the batch has the classes of its images."""
        model = uncompiled(self.model)
        is_own = type(self).forward is TransferModule.forward and isinstance(self.criterion, PairLoss)
        return is_own and isinstance(model, SiameseModel) and model.comparison == "cosine"

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        if not self.trains_on_all_pairs or not _has_classes(batch):
            if self.trains_on_all_pairs and batch_idx == 0 and self.current_epoch == 0:
                rank_zero_info("The loss is of the given pairs alone, as batches have no classes for that of all pairs")
            return super().training_step(batch, batch_idx)
        first, second, same, classes = batch
        run: Any = self.model.from_features if self.takes_features else self.model
        logits = run(first, second, all_pairs=True)
        if batch_idx == 0 or classes.device.type == "cpu":
            _check_classes(same, classes)
        loss = cast(PairLoss, self.criterion).all_pairs(logits, classes.T.flatten())
        self.log("train_loss", loss, batch_size=len(classes), prog_bar=True)
        return loss

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


def _has_classes(batch: Sequence[Any]) -> bool:
    """Returns whether a batch has class indices `(b, 2)` after the target."""
    classes = batch[3] if len(batch) > 3 else None
    if not isinstance(classes, Tensor) or classes.is_floating_point():
        return False
    return classes.shape == (len(batch[2]), 2)


def _check_classes(same: Tensor, classes: Tensor) -> None:
    """Raises ValueError if the targets are not whether the classes of a pair are equal."""
    if not torch.equal(same.bool(), classes[:, 0] == classes[:, 1]):
        raise ValueError(
            "Expected the fourth part of a batch to be the classes of both images, which are equal where the target is "
            "1, but they are not; leave out what else may follow the target"
        )
