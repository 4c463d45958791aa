"""Semantic segmentation: a class for every pixel."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from ..layers import Activation, Norm, UpsampleMethod
from ..losses import SegmentationLoss, segmentation_loss
from ..losses.segmentation import LossName
from ..metrics.segmentation import SegmentationScore
from ..models import DynamicUnet
from ..models.unet.light_decoder import LastCross
from ..optim.param_groups import Splitter
from .base import LR, Stage, TransferModule
from .class_names import check_classes, names_from_data, plain_floats
from .tiling import Tiling


class ImageSegmenter(TransferModule):
    """Segments images: a pretrained encoder with a U-Net's decoder.

    Targets are class indices `(b, h, w)`; with `multilabel`, `(b, num_classes, h, w)` of 0 and 1. One class makes a
    binary task, which is multi-label with targets `(b, h, w)` or `(b, 1, h, w)`. Predictions are probabilities
    `(b, num_classes, h, w)`. It logs IoU, Dice and accuracy for evaluation, each for all classes and for every class
    (`val_iou`, `val_iou_<class>`); see `SegmentationScore`.

    Args:
        encoder: An architecture's name; see `Encoder`.
        num_classes: Number of classes.
        multilabel: Whether a pixel has any number of the classes.
        loss: Name of the loss, or the weight of each of several in a sum; see `segmentation_loss`.
        ignore_index: Value of the target that counts neither in the loss nor in the scores; by default that of the
            data module in `fit`, if it has one.
        class_weights: Weight of each class in the loss.
        label_smoothing: Share of each target that the cross entropy spreads over all classes (Szegedy 2016).
        class_names: Names of the classes, kept in the checkpoint; by default those of the data module in `fit`.
        pretrained: Whether the encoder gets its pretrained weights.
        weights: A local file with them; see `Encoder`.
        lr: See `TransferModule`.
        optimizer: See `TransferModule`.
        lr_scheduler: See `TransferModule`.
        splitter: See `TransferModule`.
        in_channels: Channels of the images.
        image_size: Size that a backbone of fixed size is built for.
        drop_path_rate: Stochastic depth of a timm backbone.
        decoder: See `DynamicUnet`, as for all that follow until `max_width`.
        upsample: Likewise.
        blur: Likewise.
        blur_final: Likewise.
        self_attention: Likewise.
        last_cross: Likewise.
        bottle: Likewise.
        act: Likewise.
        norm: Likewise.
        max_width: Likewise.
        tile_size: Height and width of the tiles, in pixels, that `predict` cuts larger images into; by default images
            are predicted whole, or in tiles of the one size that an encoder takes.
        tile_overlap: Least share of a tile's side that its neighbor covers too.

    Raises:
        ValueError: If arguments disagree, or the encoder cannot be built.
    """

    model: DynamicUnet

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
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        decoder: Literal["light", "fastai"] = "light",
        upsample: UpsampleMethod | None = None,
        blur: bool = False,
        blur_final: bool = True,
        self_attention: bool = False,
        last_cross: LastCross = "full",
        bottle: bool = False,
        act: Activation = "relu",
        norm: Norm | None = None,
        max_width: int | None = None,
        tile_size: int | tuple[int, int] | None = None,
        tile_overlap: float = 0.25,
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
        model = DynamicUnet(
            encoder,
            num_classes,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            decoder=decoder,
            upsample=upsample,
            blur=blur,
            blur_final=blur_final,
            self_attention=self_attention,
            last_cross=last_cross,
            bottle=bottle,
            act=act,
            norm=norm,
            max_width=max_width,
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
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def setup(self, stage: str) -> None:
        """Compares classes and ignored value with the data's, and takes from it what was not given."""
        if stage == "predict":
            return
        self.class_names = names_from_data(self, self.class_names)
        self._take_ignored(getattr(getattr(self.trainer, "datamodule", None), "ignore_index", None))

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
        """Returns probabilities, of images larger than `tile_size` blended from tiles."""
        return self.tiling(super().predict, *inputs)

    def activation(self, outputs: Tensor) -> Tensor:
        """Turns logits `(b, num_classes, h, w)` into probabilities."""
        return outputs.sigmoid() if self.multilabel else outputs.softmax(dim=1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses targets of another shape or kind than the task's, and values that are no class."""
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
        """Turns targets into integers, with a channel where they are several labels."""
        if not self.multilabel:
            return target.long()
        target = target[:, None] if target.ndim == 3 else target
        labels = (target > 0.5).long()
        return labels if self.ignore_index is None else labels.where(target != self.ignore_index, self.ignore_index)

    def _take_ignored(self, ignored: int | None) -> None:
        if self.ignore_index is None:
            self.ignore_index = self.hparams["ignore_index"] = ignored
            for module in self.modules():
                if isinstance(module, (SegmentationLoss, SegmentationScore)):
                    module.ignore_index = ignored
        elif ignored not in (None, self.ignore_index):
            raise ValueError(f"Expected data with the task's `ignore_index` {self.ignore_index}, but got {ignored}")
