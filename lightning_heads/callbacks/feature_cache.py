"""A frozen encoder that sees each image once."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from ..data.features import check_loader, loader_of_features
from ..params import gather_groups, group_parameters
from .feature_encoding import encode_images
from .mixing import MixUpCutMix
from .phases import Phases

_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class FeatureCache(L.Callback):
    """Encodes the training and validation images once, and trains on their features while the encoder is frozen.

    It comes behind `Phases` or a recipe of it, such as `FineTune(norm="eval")`. Where a phase trains nothing but the
    head and has `norm="eval"`, so that the encoder gives the same features in every epoch, the loaders give these for
    as long as it lasts, and images again afterwards. What is kept is what the head pools, in memory. Of pairs, each
    image is encoded once, however many pairs it is in. Epochs that a phase has only a part of are trained on images.

    Args:
        views: How many times to augment and encode each training image; one of them is drawn whenever it comes up.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: If the task's model has no features to cache.
        ValueError: If no schedule comes before, a phase can end within an epoch, the loaders make no plain batches of a
            map-style data set, or something changes the batches.
    """

    def __init__(self, views: int = 1, *, progress: bool = True) -> None:
        if views < 1:
            raise ValueError(f"Expected `views` to be at least 1, but got {views}")
        self.views, self.progress = views, progress
        self._images: list[list[DataLoader[Any]]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuses what would make features other than those that the head would see."""
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = [each for each in callbacks[: callbacks.index(self)] if isinstance(each, Phases)]
        if not before:
            raise ValueError('Expected a schedule, such as `FineTune(norm="eval")`, before `FeatureCache`')
        if before[0].can_end_early and trainer.val_check_interval != 1.0:
            raise ValueError(
                "Expected `val_check_interval` to be 1.0 beside `FeatureCache`, as a plateau may end a phase within an "
                f"epoch, but got {trainer.val_check_interval}"
            )
        if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            raise ValueError("Expected `reload_dataloaders_every_n_epochs` to be 0, as the loaders give features")
        if any(isinstance(each, MixUpCutMix) for each in callbacks):
            raise ValueError("Expected no `MixUpCutMix` beside `FeatureCache`, as it mixes images")
        owners: dict[type, Any] = {L.LightningModule: pl_module, L.LightningDataModule: trainer.datamodule}  # type: ignore[attr-defined]
        for kind, owner in owners.items():
            if hooks := [hook for hook in _BATCH_HOOKS if owner is not None and is_overridden(hook, owner, kind)]:
                raise ValueError(
                    f"Expected batches as the loaders make them, but {type(owner).__name__} overrides {hooks[0]}"
                )
        if not (hasattr(pl_module, "takes_features") and hasattr(pl_module.model, "from_features")):
            model = type(getattr(pl_module, "model", pl_module)).__name__
            raise TypeError(f"Expected a task whose model has features to cache, as `ImageModel` has, but got {model}")
        self._images = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders give features from the start, and within an epoch that is taken up again."""
        self._switch(trainer, pl_module)
        phases = _phases(trainer)
        if not any(stretch.norm == "eval" and stretch.first for stretch in phases.stretches):
            rank_zero_warn('No phase freezes with norm="eval", so that `FeatureCache` has nothing to do')

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders of this epoch give features, or images."""
        self._switch(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the task take images again."""
        self._forget(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget(pl_module)

    def _switch(self, trainer: L.Trainer, task: Any) -> None:
        cached = _is_frozen(trainer, task)
        if cached == task.takes_features:
            return
        loops = _loops(trainer)
        if cached:
            self._images = [[*loop._combined_loader.flattened] for loop in loops]
        for loop, images in zip(loops, self._images, strict=True):
            loaders = self._features(trainer, task, loop, images) if cached else images
            loop._combined_loader.flattened = loaders
            for loader in loaders:
                _set_epoch(loader, trainer.current_epoch)
        if not cached:
            self._images = []
        fetcher = trainer.fit_loop._data_fetcher
        if fetcher is not None:
            fetcher.setup(trainer.fit_loop._combined_loader)  # type: ignore[arg-type]
            iter(fetcher)
        task.takes_features = cached

    def _features(
        self, trainer: L.Trainer, task: Any, loop: Any, loaders: list[DataLoader[Any]]
    ) -> list[DataLoader[Any]]:
        trains = loop is trainer.fit_loop
        views, name = (self.views, "training") if trains else (1, "validation")
        for loader in loaders:
            check_loader(loader)
        return [
            loader_of_features(loader, encode_images(trainer, task, loader, views, name, self.progress))
            for loader in loaders
        ]

    def _forget(self, task: Any) -> None:
        self._images = []
        if hasattr(task, "takes_features"):
            task.takes_features = False


def _phases(trainer: L.Trainer) -> Phases:
    return next(callback for callback in trainer.callbacks if isinstance(callback, Phases))  # type: ignore[attr-defined]


def _is_frozen(trainer: L.Trainer, task: Any) -> bool:
    """Tells whether all steps that an epoch has left, or those of a new one, leave the encoder as it is."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return False
    batches = int(trainer.num_training_batches)
    left = batches - trainer.fit_loop.epoch_loop.batch_progress.current.completed % batches
    steps = -(-left // trainer.accumulate_grad_batches)
    stretch = _phases(trainer).stretch_of(trainer.global_step, trainer.global_step + steps)
    if stretch is None or stretch.norm != "eval":
        return False
    frozen = {*group_parameters(gather_groups(trainer.optimizers[0])[: stretch.first])}
    return all(parameter in frozen for parameter in task.model.encoder.parameters())


def _loops(trainer: L.Trainer) -> list[Any]:
    """Returns the loops over training and, where there is any, validation, with their loaders made."""
    fit, val = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
    if trainer.enable_validation and trainer.val_dataloaders is None:
        trainer.validating = True
        val.setup_data()
        trainer.training = True
    return [fit, val] if val._combined_loader is not None else [fit]


def _set_epoch(loader: DataLoader[Any], epoch: int) -> None:
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
            set_epoch(epoch)
