"""Restoration of images: image in, image out."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ..data.images.reading import read_image
from ..data.transforms.resize import ResizeTo
from ..encoders import Encoder
from ..layers import Activation, Norm, UpsampleMethod
from ..losses import FeatureLoss, SSIMLoss, StyleLoss, WeightedSum
from ..losses.ssim import check_shapes
from ..models import DynamicUnet
from ..models.unet.light_decoder import LastCross
from ..models.unet.residual import ResidualUnet
from ..optim.param_groups import Splitter
from ..utils.tensors import at_least_float32
from .base import LR, TransferModule
from .tiling import Tiling

Loss = Literal["l1", "mse", "ssim", "feature", "style"]


class ImageRestorer(TransferModule):
    """Turns images into images: super-resolution, denoising, colorization, stylization, with a U-Net.

    Inputs are `(b, in_channels, h, w)` and targets `(b, num_outputs, h, w)`, both in 0..1 and of one size: a small
    image is enlarged first. Predictions are clamped to 0..1. It logs PSNR (in decibels, of the mean squared error over
    the whole set) and SSIM (mean over images) for evaluation.

    Args:
        encoder: An architecture's name; see `Encoder`.
        num_outputs: Channels of the restored images.
        loss: Mean absolute or squared error, `SSIMLoss`, `FeatureLoss` or `StyleLoss`; or the weight of each of several
            in a sum. For `style`, targets are the photographs.
        residual: Whether the network predicts the difference from its input (Kim 2016), which is none at first
            (Bachlechner 2020, ReZero): a start from images that are nearly right. By default where inputs have
            `num_outputs` channels and there is no `y_range`; inputs of one channel may have it too.
        y_range: Range that outputs are squashed into.
        pretrained: Whether the encoder gets its pretrained weights.
        weights: A local file with them; see `Encoder`.
        lr: See `TransferModule`.
        optimizer: See `TransferModule`.
        lr_scheduler: See `TransferModule`.
        splitter: See `TransferModule`.
        in_channels: Channels of the inputs.
        image_size: Size that a backbone of fixed size is built for.
        drop_path_rate: Stochastic depth of a timm backbone.
        tile_size: Height and width of the tiles, in pixels, that `predict` cuts larger images into; by default images
            are predicted whole, or in tiles of the one size that an encoder takes.
        tile_overlap: Least share of a tile's side that its neighbor covers too.
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
        feature_encoder: Architecture that the feature and style losses compare images by. Its weights are in
            checkpoints, 59 MB for this one, so that a resumed run has the same loss.
        feature_pretrained: Whether it gets its pretrained weights.
        feature_weights: A local file with them.
        feature_layers: Maps of its pyramid that are compared; by default those of the loss.
        feature_layer_weights: Weight of each of these maps, likewise.
        style_image: The picture whose style is taken, a file.
        style_size: Side of the square that is cut from the picture, in pixels.
        style_weight: Weight of the style; that of the content is 1.

    Raises:
        ValueError: If the loss is unknown or lacks something, or an encoder cannot be built.
    """

    def __init__(
        self,
        encoder: str,
        num_outputs: int = 3,
        *,
        loss: Loss | dict[str, float] = "l1",
        residual: bool | None = None,
        y_range: tuple[float, float] | None = None,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        tile_size: int | tuple[int, int] | None = None,
        tile_overlap: float = 0.25,
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
        feature_encoder: str = "torchvision/vgg16_bn",
        feature_pretrained: bool = True,
        feature_weights: str | Path | None = None,
        feature_layers: Sequence[int] | None = None,
        feature_layer_weights: Sequence[float] | None = None,
        style_image: str | Path | None = None,
        style_size: int = 256,
        style_weight: float = 1.0,
    ) -> None:
        parts = _check_loss({loss: 1.0} if isinstance(loss, str) else loss)
        if style_image is not None and "style" not in parts:
            raise ValueError(f"Expected `style_image` with the style loss, but got it with {', '.join(parts)}")
        if residual and y_range is not None:
            raise ValueError(f"Expected no `y_range` with `residual`, as differences have no range, but got {y_range}")
        unet = DynamicUnet(
            encoder,
            num_outputs,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            y_range=y_range,
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
        if residual is None:
            residual = y_range is None and unet.encoder.in_channels == num_outputs
        features = functools.partial(
            Encoder,
            feature_encoder,
            pretrained=feature_pretrained,
            weights=feature_weights,
            in_channels=num_outputs,
            image_size=image_size,
            readout=False,
        )
        style = None if style_image is None else _read_style(style_image, num_outputs, style_size)
        makers: dict[str, Callable[[], nn.Module]] = {
            "l1": nn.L1Loss,
            "mse": nn.MSELoss,
            "ssim": SSIMLoss,
            "feature": lambda: FeatureLoss(features(), layers=feature_layers, layer_weights=feature_layer_weights),
            "style": lambda: StyleLoss(
                features(), style, layers=feature_layers, layer_weights=feature_layer_weights, style_weight=style_weight
            ),
        }
        metrics: dict[str, Metric] = {
            "psnr": PeakSignalNoiseRatio(data_range=1.0),
            "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        }
        super().__init__(
            ResidualUnet(unet, num_outputs) if residual else unet,
            WeightedSum([makers[name]() for name in parts], [*parts.values()]),
            metrics,
            lr=lr,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            splitter=splitter,
        )
        self.tiling = Tiling(unet.encoder.meta, tile_size, tile_overlap)
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def setup(self, stage: str) -> None:
        """Refuses to train a style that is not known.

        Raises:
            ValueError: If there is none.
        """
        styles = [module for module in self.criterion.modules() if isinstance(module, StyleLoss)]
        if stage == "fit" and not all(style.has_style for style in styles):
            raise ValueError("Expected `style_image` with the style loss, but got None")

    def predict(self, *inputs: Tensor) -> Tensor:
        """Returns restored images, those larger than `tile_size` blended from tiles."""
        return self.tiling(super().predict, *inputs)

    def activation(self, outputs: Tensor) -> Tensor:
        """Clamps images to 0..1."""
        return at_least_float32(outputs).clamp(0, 1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses targets of another shape, which the loss would broadcast."""
        check_shapes(outputs, target)

    def metric_target(self, target: Tensor) -> Tensor:
        """Returns the target in the precision of the predictions, which the metrics ask for."""
        return at_least_float32(target)


def _check_loss(parts: dict[str, float]) -> dict[str, float]:
    known = get_args(Loss)
    if not parts or any(name not in known for name in parts):
        raise ValueError(f"Expected `loss` to be of {', '.join(known)}, but got {', '.join(parts) or 'none'}")
    return parts


def _read_style(path: str | Path, channels: int, size: int) -> Tensor:
    image: Tensor = ResizeTo((size, size))(read_image(path, channels))
    return image / 255
