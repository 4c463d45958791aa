"""Image restoration and other image-to-image tasks."""

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
from ..losses import FeatureLoss, SSIMLoss, StyleLoss, WeightedSum
from ..losses.ssim import check_shapes
from ..models import DynamicUnet
from ..models.unet.residual import ResidualUnet
from ..models.unet.unet import UnetArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from ..utils.image_range import check_image_range
from ..utils.tensors import at_least_float32
from .base import LR, TransferModule
from .tiling import Tiling

Loss = Literal["l1", "mse", "ssim", "feature", "style"]


@forwards(UnetArgs, to=DynamicUnet)
class ImageRestorer(TransferModule):
    """Maps images to images by a U-Net: super-resolution, denoising, colorization, stylization.

    Inputs are `(b, in_channels, h, w)` and targets `(b, num_outputs, h, w)`, both in 0..1 and of one size: for
    super-resolution, inputs are upscaled before. Predictions are clamped to 0..1. PSNR (in decibels, of the mean
    squared error over the data set) and SSIM (mean over images) are logged in validation and test.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        num_outputs: Channels of the restored images.
        loss: Loss: `l1` (mean absolute error), `mse` (mean squared error), `ssim` (`SSIMLoss`), `feature`
            (`FeatureLoss`) or `style` (`StyleLoss`, with the photographs as targets); or a mapping of several names to
            their weights in a sum.
        residual: Whether the network predicts the difference from its input (Kim 2016), which is 0 at first
            (Bachlechner 2020, ReZero), for inputs that are close to their targets. By default true if inputs have
            `num_outputs` channels and there is no `y_range`; with inputs of one channel it is possible too.
        y_range: Range that a final sigmoid scales the outputs to.
        pretrained: Whether the encoder gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of the encoder, in place of a download.
        lr: Learning rate: a number, a pair that is spaced geometrically from the first parameter group to the last,
            `(None, b)` for b in the last group and b / 10 in the others, or one number per group.
        optimizer: Function that creates the optimizer from parameter groups; by default AdamW with fastai's constants.
        lr_scheduler: Function that creates a learning rate scheduler from the optimizer, stepped once per epoch.
        splitter: Function from the model to its parameter groups, in place of `model.param_groups()`; fastai's
            `splitter`.
        in_channels: Channels of the inputs; by default the encoder's own, 3 for pretrained weights.
        tile_size: Height and width in pixels of the tiles that larger images are predicted in; by default images are
            predicted whole, or in tiles of the encoder's input size if it takes only one size.
        tile_overlap: Minimum overlap of neighboring tiles, as a fraction of the tile's height and width.
        feature_encoder: Architecture of the encoder whose feature maps the feature and style losses compare. Its
            weights are saved in checkpoints, 59 MB for the default, so that a resumed run has the same loss.
        feature_pretrained: Whether the encoder of the feature and style losses gets its pretrained weights, downloaded
            where needed.
        feature_weights: Local file with the weights of the encoder of the feature and style losses, in place of a
            download.
        feature_layers: Indices of the feature maps that the feature and style losses compare, 0 the finest; by default
            2, 3 and 4 for the feature loss, and 0, 1, 2 and 3 for the style loss.
        feature_layer_weights: Weight of each feature map that is compared; by default 5, 15 and 2 for the feature loss,
            and 1 for the style loss.
        style_image: Image file whose style the style loss compares to; needed for training with that loss.
        style_size: Height and width of the square that the style image is scaled and cropped to, in pixels.
        style_weight: Weight of the style in the style loss; that of the content is 1.

    Raises:
        ValueError: If the loss is unknown, arguments contradict each other, or an encoder cannot be built.
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
        tile_size: int | tuple[int, int] | None = None,
        tile_overlap: float = 0.25,
        feature_encoder: str = "torchvision/vgg16_bn",
        feature_pretrained: bool = True,
        feature_weights: str | Path | None = None,
        feature_layers: Sequence[int] | None = None,
        feature_layer_weights: Sequence[float] | None = None,
        style_image: str | Path | None = None,
        style_size: int = 256,
        style_weight: float = 1.0,
        **architecture: Unpack[UnetArgs],
    ) -> None:
        loss_weights = _check_loss({loss: 1.0} if isinstance(loss, str) else loss)
        if style_image is not None and "style" not in loss_weights:
            raise ValueError(
                f"Expected `style_image` only with the style loss, but `loss` is {', '.join(loss_weights)}"
            )
        if residual and y_range is not None:
            raise ValueError(
                f"Expected no `y_range` with `residual`, as it would limit the difference, but got {y_range}"
            )
        architecture = with_defaults(UnetArgs, architecture, DynamicUnet)
        unet = DynamicUnet(
            encoder,
            num_outputs,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            y_range=y_range,
            **architecture,
        )
        if residual is None:
            residual = y_range is None and unet.encoder.in_channels == num_outputs
        build_encoder = functools.partial(
            Encoder,
            feature_encoder,
            pretrained=feature_pretrained,
            weights=feature_weights,
            in_channels=num_outputs,
            image_size=architecture["image_size"],
            readout=False,
        )
        style = None if style_image is None else _read_style(style_image, num_outputs, style_size)
        losses: dict[str, Callable[[], nn.Module]] = {
            "l1": nn.L1Loss,
            "mse": nn.MSELoss,
            "ssim": SSIMLoss,
            "feature": lambda: FeatureLoss(build_encoder(), layers=feature_layers, layer_weights=feature_layer_weights),
            "style": lambda: StyleLoss(
                build_encoder(),
                style,
                layers=feature_layers,
                layer_weights=feature_layer_weights,
                style_weight=style_weight,
            ),
        }
        metrics: dict[str, Metric] = {
            "psnr": PeakSignalNoiseRatio(data_range=1.0),
            "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        }
        super().__init__(
            ResidualUnet(unet, num_outputs) if residual else unet,
            WeightedSum([losses[name]() for name in loss_weights], [*loss_weights.values()]),
            metrics,
            lr=lr,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            splitter=splitter,
        )
        self.tiling = Tiling(unet.encoder.meta, tile_size, tile_overlap)
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Checks that a style loss has a style before training.

        Raises:
            ValueError: If there is no style image.
        """
        styles = [module for module in self.criterion.modules() if isinstance(module, StyleLoss)]
        if stage == "fit" and not all(style.has_style for style in styles):
            raise ValueError("Expected `style_image` with the style loss, but got None")

    def predict(self, *inputs: Tensor) -> Tensor:
        """Returns restored images; those larger than `tile_size` are predicted in tiles and blended."""
        return self.tiling(super().predict, *inputs)

    def activation(self, outputs: Tensor) -> Tensor:
        """Clamps images to 0..1."""
        return at_least_float32(outputs).clamp(0, 1)

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if the target has another shape, which the loss would broadcast."""
        check_shapes(outputs, target)

    def check_first_batch(self, batch: Any) -> None:
        """Checks the range of the inputs and, in training and evaluation, of the targets."""
        super().check_first_batch(batch)
        if isinstance(batch, (list, tuple)) and len(batch) > 1 and not self.trainer.predicting:
            check_image_range(batch[1], "targets")

    def metric_target(self, target: Tensor) -> Tensor:
        """Returns the target in the precision of the predictions, which the metrics require."""
        return at_least_float32(target)


def _check_loss(weights: dict[str, float]) -> dict[str, float]:
    known = get_args(Loss)
    if not weights or any(name not in known for name in weights):
        raise ValueError(f"Expected `loss` to be of {', '.join(known)}, but got {', '.join(weights) or 'none'}")
    return weights


def _read_style(path: str | Path, channels: int, size: int) -> Tensor:
    image: Tensor = ResizeTo((size, size))(read_image(path, channels))
    return image / 255
