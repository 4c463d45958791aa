"""Semantic segmentation: a class for every pixel."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from ..losses import SegmentationLoss, segmentation_loss
from ..losses.segmentation import LossName
from ..metrics.segmentation import SegmentationScore
from ..models import DynamicUnet
from ..models.unet.unet import UnetArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from .base import LR, Stage, TransferModule
from .class_names import check_classes, plain_floats, take_class_names
from .hyperparameters import Hyperparameter
from .tiling import Tiling


@forwards(UnetArgs, to=DynamicUnet)
class ImageSegmenter(TransferModule):
    """Semantic segmentation by a U-Net on a pretrained encoder.

    Targets are class indices `(b, h, w)`; with `multilabel`, `(b, num_classes, h, w)` of 0 and 1. With one class the
    task is binary: multi-label, with targets `(b, h, w)` or `(b, 1, h, w)`. Predictions are probabilities
    `(b, num_classes, h, w)`. IoU, Dice and accuracy are logged in validation and test, each of all classes and of every
    class (`val_iou`, `val_iou_<class>`); see `SegmentationScore`.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        num_classes: Number of classes.
        multilabel: Whether a pixel may have any number of classes, of independent probabilities, instead of one.
        loss: Loss: `cross_entropy`, `dice`, `focal` or `tversky`; or a mapping of several names to their weights in a
            sum.
        ignore_index: Value of the target that the loss and the metrics ignore; by default that of the data module, if
            it has one.
        class_weights: Weight of each class in the loss.
        label_smoothing: Fraction of each target that the cross entropy spreads evenly over all classes, or with
            `multilabel` over 0 and 1 (Szegedy 2016).
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
        tile_size: Height and width in pixels of the tiles that larger images are predicted in; by default images are
            predicted whole, or in tiles of the encoder's input size if it takes only one size.
        tile_overlap: Minimum overlap of neighboring tiles, as a fraction of the tile's height and width.

    Raises:
        ValueError: If arguments contradict each other, or the encoder cannot be built.
    """

    model: DynamicUnet
    class_names = Hyperparameter[list[str]]()

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        multilabel: bool = False,
        loss: LossName | dict[str, float] = "cross_entropy",
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        class_names: Sequence[str] | None = None,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        in_channels: int | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_overlap: float = 0.25,
        **architecture: Unpack[UnetArgs],
    ) -> None:
        multilabel = multilabel or num_classes == 1
        check_classes(num_classes, multilabel, class_weights, class_names)
        class_weights = plain_floats(class_weights)
        criterion = segmentation_loss(
            loss,
            multilabel=multilabel,
            ignore_index=ignore_index,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
        )
        architecture = with_defaults(UnetArgs, architecture, DynamicUnet)
        model = DynamicUnet(
            encoder,
            num_classes,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            y_range=None,
            **architecture,
        )
        metrics: dict[str, Metric] = {
            "iou": SegmentationScore("iou", num_classes, multilabel=multilabel, ignore_index=ignore_index),
            "dice": SegmentationScore("dice", num_classes, multilabel=multilabel, ignore_index=ignore_index),
            "accuracy": SegmentationScore("accuracy", num_classes, multilabel=multilabel, ignore_index=ignore_index),
        }
        super().__init__(
            model, criterion, metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.num_classes = num_classes
        self.multilabel = multilabel
        self.ignore_index = ignore_index
        self.class_names = [str(i) for i in range(num_classes)] if class_names is None else [*class_names]
        self.tiling = Tiling(model.encoder.meta, tile_size, tile_overlap)
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Checks classes and `ignore_index` against the data module, and takes from it those that were not given."""
        if stage == "predict":
            return
        take_class_names(self)
        self._set_ignore_index(getattr(getattr(self.trainer, "datamodule", None), "ignore_index", None))

    def class_scores(self, stage: Stage) -> dict[str, Tensor]:
        """Returns each score of each class, by the name it is logged under, at the end of an evaluation.

        A class that occurred in neither predictions nor targets has NaN.
        """
        metrics = self.val_metrics if stage == "val" else self.test_metrics
        return {
            f"{name}_{class_name}": value
            for name, metric in metrics.items(keep_base=False, copy_state=False)
            if isinstance(metric, SegmentationScore)
            for class_name, value in zip(self.class_names, metric.per_class(), strict=True)
        }

    def predict(self, *inputs: Tensor) -> Tensor:
        """Returns probabilities; images larger than `tile_size` are predicted in tiles and blended."""
        return self.tiling(super().predict, *inputs)

    def activation(self, outputs: Tensor) -> Tensor:
        """Converts logits `(b, num_classes, h, w)` to probabilities."""
        return outputs.sigmoid() if self.multilabel else outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if targets have another shape or type, or values that are not a class."""
        shape = outputs.shape if self.multilabel else (len(outputs), *outputs.shape[2:])
        if target.shape != shape and not (self.num_classes == 1 and target.shape == outputs[:, 0].shape):
            kind = "`multilabel` masks" if self.multilabel else "masks of class indices"
            raise ValueError(f"Expected {kind} of {tuple(shape)}, but got {tuple(target.shape)}")
        if not self.multilabel and target.is_floating_point():
            raise ValueError(f"Expected masks of class indices, which are integers, but got {target.dtype}")
        highest = 1 if self.multilabel else self.num_classes - 1
        values = target if self.ignore_index is None else target[target != self.ignore_index]
        wrong = torch.unique(values[(values < 0) | (values > highest)]).tolist()
        if wrong:
            ignored = "" if self.ignore_index is None else f" or {self.ignore_index} (`ignore_index`)"
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise ValueError(f"Expected masks with values from 0 to {highest}{ignored}, but got {listed}")

    def metric_target(self, target: Tensor) -> Tensor:
        """Converts targets to integers, multi-label ones to `(b, num_classes, h, w)`."""
        if not self.multilabel:
            return target.long()
        target = target[:, None] if target.ndim == 3 else target
        labels = (target > 0.5).long()
        return labels if self.ignore_index is None else labels.where(target != self.ignore_index, self.ignore_index)

    def _set_ignore_index(self, ignored: int | None) -> None:
        if self.ignore_index is None:
            self.ignore_index = self.hparams["ignore_index"] = ignored
            for module in self.modules():
                if isinstance(module, (SegmentationLoss, SegmentationScore)):
                    module.ignore_index = ignored
        elif ignored not in (None, self.ignore_index):
            raise ValueError(f"Expected data with the task's `ignore_index` {self.ignore_index}, but got {ignored}")
