"""Temporarily replaces a trainer's data loaders."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch.utils.data import DataLoader

from ...data.loading.seeded_loader import SeededLoader


class LoaderSwap:
    """Replaces the loaders of a trainer during `fit`, and restores them."""

    def __init__(self) -> None:
        # each loop with its own loaders and their replacements
        self._replaced: list[tuple[Any, list[DataLoader[Any]], list[DataLoader[Any]]]] = []

    def swap(self, trainer: L.Trainer, others: list[list[DataLoader[Any]]]) -> None:
        """Replaces the loaders by others, which are given in the order of `loaders_of`."""
        for loop, replacements in zip(_loops(trainer), others, strict=True):
            own = [*loop._combined_loader.flattened]
            for loader in own:
                _shutdown_workers_and_reset_iterator(loader)
            loop._combined_loader.flattened = replacements
            self._replaced.append((loop, own, replacements))

    def put_back(self) -> None:
        """Restores the trainer's own loaders, at the position in the epoch that their replacements have reached."""
        for loop, own, replacements in self._replaced:
            for loader, replacement in zip(own, replacements, strict=True):
                if isinstance(loader, SeededLoader) and isinstance(replacement, SeededLoader):
                    loader.copy_position(replacement)  # a checkpoint may still be saved
            if loop._combined_loader is not None:
                loop._combined_loader.flattened = own
        self._replaced = []


def loaders_of(trainer: L.Trainer) -> list[list[DataLoader[Any]]]:
    """Returns the training loaders and, if there are any, the validation loaders, which are created if needed."""
    return [[*loop._combined_loader.flattened] for loop in _loops(trainer)]


def restart_fetcher(trainer: L.Trainer) -> None:
    """Restarts the data fetcher so that the current epoch uses the attached loaders."""
    for loader in (loader for loaders in loaders_of(trainer) for loader in loaders):
        for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(trainer.current_epoch)
    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is not None:
        fetcher.setup(trainer.fit_loop._combined_loader)  # type: ignore[arg-type]
        iter(fetcher)


def _loops(trainer: L.Trainer) -> list[Any]:
    fit, val = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
    if trainer.enable_validation and trainer.val_dataloaders is None:
        trainer.validating = True
        val.setup_data()
        trainer.training = True
    # Lightning creates a combined loader even if there are no loaders
    return [fit, val] if val._combined_loader is not None and any(val.max_batches) else [fit]
