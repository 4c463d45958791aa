"""Callback that trains the head on cached features of a frozen encoder."""

from itertools import chain
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from ...data.features.dataset import check_loader, loader_of_features
from ...utils.modules import uncompiled
from ..mixup import MixUpCutMix
from ..phases.phases import Phases
from .batch_norm import adapt_batch_norm
from .encoding import FeatureEncoder
from .frozen_encoder import (
    FreezingSchedule,
    FrozenState,
    encoder_is_frozen,
    encoding_parameters,
    frozen_encoder,
    schedule_of,
)
from .image_source import image_source
from .loader_swap import LoaderSwap, loaders_of, restart_fetcher

_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class FeatureCache(L.Callback):
    """Encodes the training and validation images once, and trains on their features while the encoder is frozen.

    Pass it to the trainer after `Phases` or a subclass, such as `FineTune(norm="eval")`. In a phase that trains only
    the head and has `norm="eval"`, the encoder computes the same features in every epoch: the loaders then yield cached
    features, and images again after the phase. The features are pooled as the head pools them. Each image of pairs is
    encoded once, no matter in how many pairs it is. Epochs of which such a phase covers only a part are trained on
    images; with averaged weights, so are all frozen phases but one at the start of the run. All images of a loader are
    encoded, even if the trainer limits the number of batches.

    With a `folder`, features outlive the run: the next run with the same images, weights and transforms starts training
    immediately, and `lr_find` trains on them too. The key of cached features consists of the paths, sizes and
    modification times of the files, the encoder's parameters, buffers and classes, the transforms and their classes (by
    source code), the precision, the type of device, this package's code, library versions, `views` and `dtype`; any
    difference encodes the images again. Forward hooks, and functions that a class of your own calls, are not part of
    the key. The unfinished files of a killed run are completed, and concurrent runs wait for one another. Files are
    never deleted.

    Args:
        folder: Folder in which features are saved for other runs. Without one, features are kept in memory, or, if they
            exceed 1 GiB or there are several processes, in a temporary file for the duration of the phase.
        views: Number of times that each training image is augmented and encoded; one of these views is drawn at random
            each time the image is used.
        norm_images: Number of training images on which the encoder's batch normalization statistics are estimated again
            at the start of the phase, if that is the start of an epoch; see `adapt_batch_norm`. Whether this helps
            depends on the images. With 0, the statistics of the weights are kept.
        dtype: Data type in which features are stored, such as `float16` to halve their size; by default that of the
            model's features, or float32 if that is of higher precision.
        progress: Whether to show progress bars.

    Raises:
        TypeError: If the task's model has no features to cache.
        ValueError: If the run is sharded or on several nodes, no schedule precedes this callback, a phase can end
            within an epoch, a loader does not batch a map-style data set by the default collate function, something
            changes the batches, `forward` is overridden in the task or its model, images are not in about 0..1, or
            there is a `folder` and images or transforms have no key.
        RuntimeError: If encoding failed on another rank.
        OSError: If the disk lacks space for the features.
    """

    in_lr_find = True

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        views: int = 1,
        norm_images: int = 0,
        dtype: Literal["float16", "bfloat16", "float32"] | None = None,
        progress: bool = True,
    ) -> None:
        if views < 1:
            raise ValueError(f"Expected `views` to be at least 1, but got {views}")
        if norm_images < 0:
            raise ValueError(f"Expected `norm_images` to be at least 0, but got {norm_images}")
        if dtype not in (None, "float16", "bfloat16", "float32"):
            raise ValueError(f"Expected `dtype` to be float16, bfloat16 or float32, but got {dtype!r}")
        self.folder = None if folder is None else Path(folder)
        self.views, self.norm_images, self.progress = views, norm_images, progress
        self.dtype: torch.dtype | None = None if dtype is None else getattr(torch, dtype)
        self._loader_swap = LoaderSwap()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks that cached features equal the features that the head would get from images."""
        is_replicated = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if not is_replicated or isinstance(trainer.strategy, DeepSpeedStrategy) or trainer.num_nodes > 1:
            raise ValueError(
                "Expected a single device or `ddp` on one node, for features to be cached, but got "
                f"{type(trainer.strategy).__name__} on {trainer.num_nodes} nodes"
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = [each for each in callbacks[: callbacks.index(self)] if isinstance(each, FreezingSchedule)]
        if not before:
            raise ValueError('Expected a schedule, such as `FineTune(norm="eval")`, before `FeatureCache`, but none is')
        interval = trainer.val_check_interval
        # the integer 1 means every batch
        if before[0].can_end_early and not (isinstance(interval, float) and interval == 1):
            raise ValueError(
                "Expected `val_check_interval` to be 1.0 with `FeatureCache`, as a plateau may end a phase within an "
                f"epoch, but got {interval!r}"
            )
        if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            raise ValueError(
                "Expected `reload_dataloaders_every_n_epochs` to be 0 with `FeatureCache`, which replaces the loaders, "
                "but it is not"
            )
        if any(isinstance(each, MixUpCutMix) for each in callbacks):
            raise ValueError("Expected no `MixUpCutMix` with `FeatureCache`, as it mixes images, not features")
        owners: dict[type, Any] = {L.LightningModule: pl_module, L.LightningDataModule: trainer.datamodule}  # type: ignore[attr-defined]
        for kind, owner in owners.items():
            if hooks := [hook for hook in _BATCH_HOOKS if owner is not None and is_overridden(hook, owner, kind)]:
                raise ValueError(
                    f"Expected no hook that may change batches, but {type(owner).__name__} overrides `{hooks[0]}`"
                )
        model = uncompiled(getattr(pl_module, "model", pl_module))
        has_parts = all(hasattr(model, part) for part in ("encoder", "features", "from_features", "head"))
        if not (hasattr(pl_module, "takes_features") and has_parts):
            raise TypeError(
                "Expected a task whose model has pooled features to cache, as `ImageModel` has `features`, "
                f"`from_features`, an `encoder` and a `head`, but got {type(model).__name__}. The "
                "feature maps of a U-Net's skip connections are larger than the images and change with each random crop"
            )
        for part, names in ((pl_module, ("takes_features",)), (model, ("features", "from_features"))):
            if _defining_class(part, "forward") not in [_defining_class(part, name) for name in names]:
                raise ValueError(
                    f"Expected the `forward` of {_defining_class(part, names[0]).__name__}, as features bypass any "
                    f"other, but {type(part).__name__} overrides it"
                )
        self._loader_swap = LoaderSwap()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replaces the loaders at the start of training, also if a run is resumed within an epoch."""
        self._update_loaders(trainer, pl_module)
        schedule = schedule_of(trainer)
        if isinstance(schedule, Phases) and not any(
            encoder_is_frozen(trainer, pl_module, phase) for phase in schedule.planned_phases
        ):
            rank_zero_warn('No phase trains the head alone with norm="eval", so that `FeatureCache` has no effect')

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Selects loaders of features or of images for the epoch."""
        self._update_loaders(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Checks that the encoder does not train while the batches are features."""
        task: Any = pl_module
        if task.takes_features and any(parameter.requires_grad for parameter in encoding_parameters(task.model)):
            raise RuntimeError("Expected the encoder to be frozen while the loaders yield features, but it is not")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restores the loaders of images."""
        self._restore_loaders(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restores the loaders of images."""
        self._restore_loaders(pl_module)

    def _update_loaders(self, trainer: L.Trainer, task: Any) -> None:
        frozen = frozen_encoder(trainer, task, is_kept=self.folder is not None)
        cached = frozen is not None
        if cached == task.takes_features:
            return
        if frozen is None:
            self._loader_swap.put_back()
        else:
            self._loader_swap.swap(trainer, self._loaders_of_features(trainer, task, frozen))
        restart_fetcher(trainer)
        task.takes_features = cached

    def _loaders_of_features(self, trainer: L.Trainer, task: Any, frozen: FrozenState) -> list[list[DataLoader[Any]]]:
        training, *validation = loaders_of(trainer)
        for loader in chain(training, *validation):
            check_loader(loader)
        if self.norm_images and trainer.global_step == frozen.start:
            images = image_source(task, training[0], is_kept=self.folder is not None)
            adapt_batch_norm(trainer, task, images, self.norm_images, folder=self.folder, progress=self.progress)
        encoder = FeatureEncoder(trainer, task, self.dtype, self.folder, self.progress)

        def of_features(loaders: list[DataLoader[Any]], views: int, name: str) -> list[DataLoader[Any]]:
            return [loader_of_features(loader, encoder.encode(loader, views, name)) for loader in loaders]

        return [
            of_features(training, self.views, "training"),
            *(of_features(loaders, 1, "validation") for loaders in validation),
        ]

    def _restore_loaders(self, task: Any) -> None:
        self._loader_swap.put_back()
        if hasattr(task, "takes_features"):
            task.takes_features = False


def _defining_class(instance: object, name: str) -> type:
    """Returns the class that defines an attribute of an instance, or the instance's own class if none does."""
    return next((part for part in type(instance).__mro__ if name in vars(part)), type(instance))
