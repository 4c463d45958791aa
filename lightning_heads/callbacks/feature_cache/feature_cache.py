"""A frozen encoder that sees each image once."""

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

    It comes behind `Phases` or a recipe of it, such as `FineTune(norm="eval")`. Where a phase trains nothing but the
    head and has `norm="eval"`, so that the encoder gives the same features in every epoch, the loaders give these for
    as long as it lasts, and images again afterwards. What is kept is what the head pools. Of pairs, each image is
    encoded once, however many pairs it is in. Epochs that a phase has only a part of are trained on images, as are,
    beside averaged weights, frozen phases behind others. All images of a loader are encoded, however many the trainer's
    limits leave.

    In a `folder`, features outlive the run: the next one with the same images, weights and transforms begins to train
    at once, and `lr_find` trains on them too. They are found by the files' paths, sizes and times of change, the
    encoder's parameters, buffers and classes, the transforms and their classes, by source code, the precision, the
    kind of device, this package's code, versions of libraries, `views` and `dtype`; whatever differs is encoded anew.
    Forward hooks, and functions that a class of your own calls, are not looked at. Files of a run that was killed are
    filled further, and runs at the same time wait for one another. Nothing is ever removed.

    Args:
        folder: Where to keep features for other runs. Without one they are kept in memory, or, from a GiB on or with
            several processes, in a temporary file for as long as the phase lasts.
        views: How many times to augment and encode each training image; one of them is drawn whenever it comes up.
        norm_images: On how many training images to estimate the encoder's batch normalization statistics anew when the
            phase begins, if that is with an epoch; see `adapt_batch_norm`. Whether that helps depends on the images.
            With 0 those of the weights stay.
        dtype: What to keep features in, to halve them; by default as they come, in float32 at least.
        progress: Whether to show progress bars.

    Raises:
        TypeError: If the task's model has no features to cache.
        ValueError: If the run is sharded or on several nodes, no schedule comes before, a phase can end within an
            epoch, the loaders make no plain batches of a map-style data set, something changes the batches, `forward`
            is overridden in the task or its model, or images cannot be told from others in a `folder`.
        RuntimeError: If another process failed to encode its share.
        OSError: If there is no room for the features.
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
        """Refuses what would make features other than those that the head would see."""
        replicates = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if not replicates or isinstance(trainer.strategy, DeepSpeedStrategy) or trainer.num_nodes > 1:
            raise ValueError(
                "Expected a single device or `ddp` on one node, for features to be cached, but got "
                f"{type(trainer.strategy).__name__} on {trainer.num_nodes} nodes"
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = [each for each in callbacks[: callbacks.index(self)] if isinstance(each, FreezingSchedule)]
        if not before:
            raise ValueError('Expected a schedule, such as `FineTune(norm="eval")`, before `FeatureCache`')
        interval = trainer.val_check_interval
        if before[0].can_end_early and not (isinstance(interval, float) and interval == 1):  # 1 is a batch
            raise ValueError(
                "Expected `val_check_interval` to be 1.0 beside `FeatureCache`, as a plateau may end a phase within an "
                f"epoch, but got {interval!r}"
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
        model = getattr(pl_module, "model", pl_module)
        parts = all(hasattr(model, part) for part in ("encoder", "features", "from_features", "head"))
        if not (hasattr(pl_module, "takes_features") and parts):
            raise TypeError(
                "Expected a task whose model has pooled features to cache, as `ImageModel` has `features`, "
                f"`from_features`, an `encoder` and a `head`, but got {type(model).__name__}. The "
                "maps that a U-Net joins are larger than the images themselves, and change with each random crop"
            )
        for part, names in ((pl_module, ("takes_features",)), (model, ("features", "from_features"))):
            if _owner(part, "forward") not in [_owner(part, name) for name in names]:
                raise ValueError(
                    f"Expected the `forward` of {_owner(part, names[0]).__name__}, as features pass by any other, but "
                    f"{type(part).__name__} overrides it"
                )
        self._loader_swap = LoaderSwap()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders give features from the start, and within an epoch that is taken up again."""
        self._switch(trainer, pl_module)
        schedule = schedule_of(trainer)
        if isinstance(schedule, Phases) and not any(
            encoder_is_frozen(trainer, pl_module, phase) for phase in schedule.planned_phases
        ):
            rank_zero_warn('No phase trains the head alone with norm="eval", so that `FeatureCache` has nothing to do')

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders of this epoch give features, or images."""
        self._switch(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Makes sure that no encoder trains that sees nothing."""
        task: Any = pl_module
        if task.takes_features and any(parameter.requires_grad for parameter in encoding_parameters(task.model)):
            raise RuntimeError("Expected the encoder to be frozen while the loaders give features, but it is not")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the task take images again."""
        self._forget(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget(pl_module)

    def _switch(self, trainer: L.Trainer, task: Any) -> None:
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

    def _forget(self, task: Any) -> None:
        self._loader_swap.put_back()
        if hasattr(task, "takes_features"):
            task.takes_features = False


def _owner(thing: object, name: str) -> type:
    """Returns the class that defines an attribute of an object, its own where none does."""
    return next((part for part in type(thing).__mro__ if name in vars(part)), type(thing))
