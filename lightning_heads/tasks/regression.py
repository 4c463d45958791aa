"""Regression of numbers from images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from ..models import ImageModel
from ..models.image import ImageModelArgs
from ..optim.param_groups import Splitter
from ..utils.arguments import Unpack, forwards, with_defaults
from .base import LR, TransferModule


@forwards(ImageModelArgs, to=ImageModel)
class ImageRegressor(TransferModule):
    """Predicts numbers from images by a pretrained encoder with fastai's head.

    Targets and predictions are `(b, num_outputs)`. Mean absolute and mean squared error are logged in validation and
    test.

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too.
        num_outputs: Number of values to predict per image.
        y_range: Range that a final sigmoid scales the predictions to; it should be a little wider than that of targets.
        loss: Loss: `mse` (mean squared error), `l1` (mean absolute error) or `huber`.
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

    def __init__(
        self,
        encoder: str,
        num_outputs: int = 1,
        *,
        y_range: tuple[float, float] | None = None,
        loss: Literal["mse", "l1", "huber"] = "mse",
        pretrained: bool = True,
        weights: str | Path | None = None,
        lr: LR = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
        in_channels: int | None = None,
        **architecture: Unpack[ImageModelArgs],
    ) -> None:
        losses = {"mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
        if loss not in losses:
            raise ValueError(f"Expected `loss` to be {', '.join(losses)}, but got {loss!r}")
        architecture = with_defaults(ImageModelArgs, architecture, ImageModel)
        model = ImageModel(
            encoder,
            num_outputs,
            pretrained=pretrained,
            weights=weights,
            head=None,
            y_range=y_range,
            in_channels=in_channels,
            **architecture,
        )
        metrics: dict[str, Metric] = {
            "mean_absolute_error": MeanAbsoluteError(),
            "mean_squared_error": MeanSquaredError(),
        }
        super().__init__(
            model, losses[loss](), metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.save_hyperparameters()

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if the target has another shape, which the loss would broadcast."""
        if target.shape != outputs.shape:
            raise ValueError(f"Expected targets of {tuple(outputs.shape)}, but got {tuple(target.shape)}")
