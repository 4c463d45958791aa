"""Other loaders in the place of a trainer's own, for a while."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch.utils.data import DataLoader

from ...data.loading.seeded_loader import SeededLoader


class LoaderSwap:
    """Loaders of a trainer that fits, taken out while others stand in for them."""

    def __init__(self) -> None:
        # loops, their own loaders and those that stand in for them
        self._taken: list[tuple[Any, list[DataLoader[Any]], list[DataLoader[Any]]]] = []

    def swap(self, trainer: L.Trainer, others: list[list[DataLoader[Any]]]) -> None:
        """Puts others in the place of the loaders, in the order of `loaders_of`."""
        for loop, stand_ins in zip(_loops(trainer), others, strict=True):
            own = [*loop._combined_loader.flattened]
            for loader in own:
                _shutdown_workers_and_reset_iterator(loader)
            loop._combined_loader.flattened = stand_ins
            self._taken.append((loop, own, stand_ins))

    def put_back(self) -> None:
        """Puts the trainer's own loaders back, where others stand in for them, at the place that those have reached."""
        for loop, own, stand_ins in self._taken:
            for loader, stand_in in zip(own, stand_ins, strict=True):
                if isinstance(loader, SeededLoader) and isinstance(stand_in, SeededLoader):
                    loader.copy_position(stand_in)  # a checkpoint may be saved yet
            if loop._combined_loader is not None:
                loop._combined_loader.flattened = own
        self._taken = []


def loaders_of(trainer: L.Trainer) -> list[list[DataLoader[Any]]]:
    """Returns the loaders of training and, where there is any, of validation, made if they were not."""
    return [[*loop._combined_loader.flattened] for loop in _loops(trainer)]


def restart_fetcher(trainer: L.Trainer) -> None:
    """Has an epoch that began with other loaders begin with those of now."""
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
    # of no loaders, Lightning makes a combined one all the same
    return [fit, val] if val._combined_loader is not None and any(val.max_batches) else [fit]
