"""Random numbers that go on where a checkpoint left them."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn


class RandomState(L.Callback):
    """Keeps the state of every process's random generators in checkpoints, and goes on from it when resumed.

    Without it, dropout and shuffling of a resumed run differ from those of one that was never interrupted. It covers
    Python, NumPy, torch and its CUDA devices in the main processes; what workers of a loader draw is the loader's.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        states: list[Any] = [_state()]
        if trainer.world_size > 1 and dist.is_initialized():
            states = [None] * trainer.world_size
            dist.all_gather_object(states, _state())
        checkpoint["random_state"] = states

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random_state")
        if states is not None and len(states) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint has random states of {len(states)} processes, and there are {trainer.world_size}: the "
                "run draws other numbers than an uninterrupted one"
            )
            states = None
        self._states = states

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores before the loader of the next epoch draws its order."""
        if self._states is not None:
            _restore(self._states[trainer.global_rank])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores again in the middle of an epoch, whose loader drew a seed as it started anew."""
        if self._states is not None and trainer.fit_loop.restarted_mid_epoch:
            _restore(self._states[trainer.global_rank])
        self._states = None


def _state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
