"""Saves and restores the random state, so that a resumed run equals an uninterrupted one."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ..utils.random_state import random_state, restore_random_state
from .outputs import gather_objects


class ExactResume(L.Callback):
    """Makes a resumed run end with the weights of one that was never interrupted.

    Checkpoints hold the state of each rank's random generators (Python's, NumPy's, torch's and that of the rank's CUDA
    device), from which dropout and shuffling draw, and a resumed run restores it. After validation, whose data loader
    draws a seed, torch's generator is restored, so that training does not depend on how often it is validated. Resuming
    in the middle of an epoch needs a data loader with a state dict, such as those of this package's data modules. Two
    kinds of checkpoint are not exact: one saved between the batches of an accumulated optimizer step, which lacks their
    gradients, and one saved on an exception after a forward pass, which has already updated the running statistics of
    batch normalization.

    Every task of this package adds it to the trainer.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] | None = None
        self._torch_state: Tensor | None = None  # after the last training batch

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state = random_state()
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        unfinished = batches.ready - batches.processed  # type: ignore[attr-defined]
        if unfinished and self._torch_state is not None:
            # saved on an exception within a step, which the resumed run repeats
            state["torch"] = self._torch_state
            for loader in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", []):
                if isinstance(loader, dict) and "batches" in loader:
                    loader["batches"] -= unfinished
        accumulated = batches.processed % trainer.accumulate_grad_batches  # type: ignore[attr-defined]
        if accumulated and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            rank_zero_warn(
                f"A checkpoint saved after {accumulated} of {trainer.accumulate_grad_batches} batches of a step lacks "
                "their gradients: a run resumed from it is not exact"
            )
        checkpoint["random_state"] = gather_objects(trainer, state) if dist.is_initialized() else [state]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_state") if trainer.training else None
        if states is not None and len(states) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint has the random states of {len(states)} processes, but there are {trainer.world_size}: "
                "random numbers differ from those of an uninterrupted run"
            )
            states = None
        self._states = states

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores the random state before a data loader without a state dict draws the order of the next epoch."""
        if self._states is not None:
            restore_random_state(self._states[trainer.global_rank])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restores the random state again if the training loader has a state dict, as others have drawn seeds since."""
        epochs = trainer.fit_loop.epoch_progress
        if epochs.current.started == epochs.current.processed:  # type: ignore[attr-defined]
            # after a resume from the last batch of an epoch, Lightning does not count the start of the next
            epochs.increment_ready()
            epochs.increment_started()
        if self._states is not None:
            if hasattr(trainer.train_dataloader, "load_state_dict"):
                restore_random_state(self._states[trainer.global_rank])
            self._states = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._torch_state = torch.get_rng_state()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._torch_state is not None:
            torch.set_rng_state(self._torch_state)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._torch_state = None
