"""What a resumed run needs to go on exactly as if it had never stopped."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ..utils.random_state import random_state, restore_random_state


class ExactResume(L.Callback):
    """Makes a resumed run end with the weights of one that was never interrupted.

    It keeps the state of every process's random generators in checkpoints (Python's, NumPy's, torch's and that of the
    process's CUDA device), as dropout and shuffling draw from them, and goes on from it. Validation, whose loader draws
    a seed, leaves torch's generator as it was, so that training does not depend on how often there is one. In the
    middle of an epoch it takes a loader with a state, as the data modules here have. Two kinds of checkpoint are not
    exact: one saved between the batches of an optimizer step, which has no gradients, and one that an exception left
    after a forward pass, which had moved the statistics of batch normalization.

    Every task here has it.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] | None = None
        self._trained: Tensor | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state = random_state()
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        undone = batches.ready - batches.processed  # type: ignore[attr-defined]
        if undone and self._trained is not None:
            # saved by an exception within a step, which will be done again
            state["torch"] = self._trained
            for loader in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", []):
                if isinstance(loader, dict) and "batches" in loader:
                    loader["batches"] -= undone
        accumulated = batches.processed % trainer.accumulate_grad_batches  # type: ignore[attr-defined]
        if accumulated and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            rank_zero_warn(
                f"A checkpoint after {accumulated} of {trainer.accumulate_grad_batches} batches of a step lacks their "
                "gradients: a run that is resumed from it is not exact"
            )
        states: list[Any] = [state]
        if trainer.world_size > 1 and dist.is_initialized():
            states = [None] * trainer.world_size
            dist.all_gather_object(states, state)
        checkpoint["random_state"] = states

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_state") if trainer.training else None
        if states is not None and len(states) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint has random states of {len(states)} processes, and there are {trainer.world_size}: the "
                "run draws other numbers than an uninterrupted one"
            )
            states = None
        self._states = states

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores before a loader without a state of its own draws the order of the next epoch."""
        if self._states is not None:
            restore_random_state(self._states[trainer.global_rank])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restores again where the loader has a state, as other loaders have drawn seeds since."""
        epochs = trainer.fit_loop.epoch_progress
        if epochs.current.started == epochs.current.processed:  # type: ignore[attr-defined]
            # resumed from the last batch of an epoch, Lightning does not count the start of the next
            epochs.increment_ready()
            epochs.increment_started()
        if self._states is not None:
            if hasattr(trainer.train_dataloader, "load_state_dict"):
                restore_random_state(self._states[trainer.global_rank])
            self._states = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._trained = torch.get_rng_state()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trained is not None:
            torch.set_rng_state(self._trained)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trained = None
