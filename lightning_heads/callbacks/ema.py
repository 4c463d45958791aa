"""Averaged weights."""

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Keeps an exponential moving average of weights and buffers, which validation and the end of the fit use.

    What does not change, such as a frozen encoder, is its own average to the bit, and counters are copied; torch's
    formula lets both drift. Otherwise it is Lightning's `EMAWeightAveraging` (Polyak 1992; Tarvainen 2017).

    Args:
        decay: Weight of the average at each optimizer step, in [0, 1).
        device: Where to keep the average; by default beside the model.
    """

    def __init__(self, decay: float = 0.999, device: str | None = None) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"Expected `decay` in [0, 1), but got {decay}")
        self.decay = decay
        self.device = None if device is None else torch.device(device)
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begins an average, on the device that the model is about to be moved to."""
        self._device = self.device or trainer.strategy.root_device
        if stage == "fit":
            self._latest_update_step, self._latest_update_epoch = 0, -1
        super().setup(trainer, pl_module, stage)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - self.decay)
        else:
            torch._foreach_copy_(averages, values)
