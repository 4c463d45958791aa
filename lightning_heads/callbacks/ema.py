"""Exponential moving average of weights."""

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Keeps an exponential moving average (EMA) of weights and buffers.

    Validation uses the averaged weights, and the model keeps them after the fit. Like Lightning's `EMAWeightAveraging`
    (Polyak 1992; Tarvainen 2017), except that the average of tensors that do not change, such as those of a frozen
    encoder, stays bitwise equal to them, and that integer buffers are copied; with torch's formula both drift. The
    decay is min(`decay`, (1 + n) / (10 + n)) after n updates, so that the average forgets the first weights in short
    runs too (`num_updates` of TensorFlow's `ExponentialMovingAverage`).

    Args:
        decay: Largest weight of the previous average in an update, one per optimizer step, in [0, 1).
        device: Device that stores the average; by default that of the model.
    """

    def __init__(self, decay: float = 0.999, device: str | None = None) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"Expected `decay` in [0, 1), but got {decay}")
        self.decay = decay
        self.device = None if device is None else torch.device(device)
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Starts a new average, by default on the device that the model will be moved to."""
        self._device = self.device or trainer.strategy.root_device
        if stage == "fit":
            self._latest_update_step, self._latest_update_epoch = 0, -1
        super().setup(trainer, pl_module, stage)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            decay = min(self.decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:
            torch._foreach_copy_(averages, values)
