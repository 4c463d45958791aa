"""Regression of numbers from single images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from ..models import ImageModel
from ..optim.param_groups import Splitter
from .base import LR, TransferModule


class ImageRegressor(TransferModule):
    """Predicts numbers from images: a pretrained encoder with fastai's head.

    Targets and predictions are `(b, num_outputs)`. It logs mean absolute and squared error.

    Args:
        encoder: An architecture's name; see `Encoder`.
        num_outputs: Numbers an image.
        y_range: Range that predictions are squashed into; leave a little room on both sides.
        loss: Mean squared, mean absolute, or Huber loss.
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
        hypercolumns: Whether the head sees the encoder's maps of all scales; see `Encoder`.
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
        lin_ftrs: Sequence[int] | None = None,
        ps: float | list[float] = 0.5,
        concat_pool: bool = True,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        hypercolumns: bool = False,
    ) -> None:
        losses = {"mse": nn.MSELoss, "l1": nn.L1Loss, "huber": nn.HuberLoss}
        if loss not in losses:
            raise ValueError(f"Expected `loss` to be {', '.join(losses)}, but got {loss!r}")
        model = ImageModel(
            encoder,
            num_outputs,
            pretrained=pretrained,
            weights=weights,
            lin_ftrs=lin_ftrs,
            ps=ps,
            concat_pool=concat_pool,
            y_range=y_range,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            hypercolumns=hypercolumns,
        )
        metrics: dict[str, Metric] = {
            "mean_absolute_error": MeanAbsoluteError(),
            "mean_squared_error": MeanSquaredError(),
        }
        super().__init__(
            model, losses[loss](), metrics, lr=lr, optimizer=optimizer, lr_scheduler=lr_scheduler, splitter=splitter
        )
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "splitter"])

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses targets of another shape, which the loss would broadcast."""
        if target.shape != outputs.shape:
            raise ValueError(f"Expected targets of {tuple(outputs.shape)}, but got {tuple(target.shape)}")
