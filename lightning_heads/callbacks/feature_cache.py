"""A frozen encoder that sees each image once."""

import math
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.utils.data import DataLoader

from ..data.features import check_loader, loader_of_features
from ..freezing import NormPolicy
from ..params import gather_groups, group_parameters
from .feature_encoding import encode_images
from .mixing import MixUpCutMix
from .norm_estimation import estimate_norm
from .phases import Phases
from .single_images import single_images_of

_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Held(Protocol):
    """What holds in some steps."""

    start: int  # step of the run at which it begins
    first: int  # parameter group, the first that trains
    norm: NormPolicy


@runtime_checkable
class Schedule(Protocol):
    """A callback that freezes."""

    @property
    def can_end_early(self) -> bool:
        """Whether what holds may end before its time."""
        ...

    def stretch_of(self, start: int, stop: int) -> Held | None:
        """Returns what holds in all steps from one to before another, or None where that changes or nothing does."""
        ...


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
    kind of device, versions of libraries, `views` and `dtype`; whatever differs is encoded anew. Functions that a class
    of your own calls are not looked at. Files of a run
    that was killed are filled further, and runs at the same time wait for one another. Nothing is ever removed.

    Args:
        folder: Where to keep features for other runs. Without one they are kept in memory, or, from a GiB on or with
            several processes, in a temporary file for as long as the phase lasts.
        views: How many times to augment and encode each training image; one of them is drawn whenever it comes up.
        norm_images: On how many training images to estimate the encoder's batch normalisation statistics anew when the
            phase begins, if that is with an epoch; see `estimate_norm`. Whether that helps depends on the images. With
            0 those of the weights stay.
        dtype: What to keep features in, to halve them; by default as they come, in float32 at least.
        progress: Whether to show progress bars.

    Raises:
        TypeError: If the task's model has no features to cache.
        ValueError: If the run is sharded or on several nodes, no schedule comes before, a phase can end within an
            epoch, the loaders make no plain batches of a map-style data set, something changes the batches, or images
            cannot be told from others in a `folder`.
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
        self._replaced: list[tuple[Any, list[DataLoader[Any]]]] = []  # loops and their loaders of images

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuses what would make features other than those that the head would see."""
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)) or trainer.num_nodes > 1:
            raise ValueError(
                "Expected a single device or `ddp` on one node, for features to be cached, but got "
                f"{type(trainer.strategy).__name__} on {trainer.num_nodes} nodes"
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        before = [each for each in callbacks[: callbacks.index(self)] if isinstance(each, Schedule)]
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
        model = getattr(pl_module, "model", pl_module)
        parts = all(hasattr(model, part) for part in ("encoder", "features", "from_features", "head"))
        if not (hasattr(pl_module, "takes_features") and parts):
            raise TypeError(
                "Expected a task whose model has pooled features to cache, as `ImageModel` has `features`, "
                f"`from_features`, an `encoder` and a `head`, but got {type(model).__name__}. The "
                "maps that a U-Net joins are larger than the images themselves, and change with each random crop"
            )
        self._replaced = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders give features from the start, and within an epoch that is taken up again."""
        self._switch(trainer, pl_module)
        schedule = _schedule(trainer)
        freezes = any(stretch.norm == "eval" and stretch.first for stretch in getattr(schedule, "stretches", []))
        if isinstance(schedule, Phases) and not freezes:
            rank_zero_warn('No phase freezes with norm="eval", so that `FeatureCache` has nothing to do')

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders of this epoch give features, or images."""
        self._switch(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Makes sure that no encoder trains that sees nothing."""
        task: Any = pl_module
        if task.takes_features and any(parameter.requires_grad for parameter in _encoding_parameters(task.model)):
            raise RuntimeError("Expected the encoder to be frozen while the loaders give features, but it is not")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the task take images again."""
        self._forget(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget(pl_module)

    def _switch(self, trainer: L.Trainer, task: Any) -> None:
        held = _frozen(trainer, task, is_kept=self.folder is not None)
        cached = held is not None
        if cached == task.takes_features:
            return
        if held is not None:
            self._replace(trainer, task, held)
        else:
            self._put_back()
        for loop in _loops(trainer):
            for loader in loop._combined_loader.flattened:
                _set_epoch(loader, trainer.current_epoch)
        fetcher = trainer.fit_loop._data_fetcher
        if fetcher is not None:
            fetcher.setup(trainer.fit_loop._combined_loader)  # type: ignore[arg-type]
            iter(fetcher)
        task.takes_features = cached

    def _replace(self, trainer: L.Trainer, task: Any, held: Held) -> None:
        """Puts loaders of features in the place of those of images."""
        replaced = [(loop, [*loop._combined_loader.flattened]) for loop in _loops(trainer)]
        for loader in chain(*(images for _, images in replaced)):
            check_loader(loader)
        if self.norm_images and trainer.global_step == held.start:
            self._estimate(trainer, task, replaced[0][1][0])
        features = [self._features(trainer, task, loop, images) for loop, images in replaced]
        for (loop, images), loaders in zip(replaced, features, strict=True):
            for loader in images:
                _shutdown_workers_and_reset_iterator(loader)
            loop._combined_loader.flattened = loaders
        self._replaced = replaced

    def _put_back(self) -> None:
        for loop, images in self._replaced:
            if loop._combined_loader is not None:
                loop._combined_loader.flattened = images
        self._replaced = []

    def _features(
        self, trainer: L.Trainer, task: Any, loop: Any, loaders: list[DataLoader[Any]]
    ) -> list[DataLoader[Any]]:
        views, name = (self.views, "training") if loop is trainer.fit_loop else (1, "validation")
        return [
            loader_of_features(
                loader,
                encode_images(
                    trainer,
                    task,
                    loader,
                    views=views,
                    dtype=self.dtype,
                    folder=self.folder,
                    name=name,
                    progress=self.progress,
                ),
            )
            for loader in loaders
        ]

    def _estimate(self, trainer: L.Trainer, task: Any, loader: DataLoader[Any]) -> None:
        images = single_images_of(task, loader, is_kept=self.folder is not None)
        estimate_norm(trainer, task, images, self.norm_images, folder=self.folder, progress=self.progress)

    def _forget(self, task: Any) -> None:
        self._put_back()
        if hasattr(task, "takes_features"):
            task.takes_features = False


def _schedule(trainer: L.Trainer) -> Schedule:
    return next(callback for callback in trainer.callbacks if isinstance(callback, Schedule))  # type: ignore[attr-defined]


def _frozen(trainer: L.Trainer, task: Any, is_kept: bool) -> Held | None:
    """Returns what holds for the rest of an epoch, or for all of a new one, if that leaves the encoder as it is."""
    schedule = _schedule(trainer)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    if not math.isfinite(trainer.num_training_batches):
        raise ValueError("Expected loaders of known length, for their features to be cached, but one has none")
    batches = int(trainer.num_training_batches)
    # of a batch whose end saved the checkpoint that a run goes on from, "completed" does not know yet
    left = batches - trainer.fit_loop.epoch_loop.batch_progress.current.processed % batches  # type: ignore[attr-defined]
    steps = -(-left // trainer.accumulate_grad_batches)
    held = schedule.stretch_of(trainer.global_step, trainer.global_step + steps)
    if held is None or held.norm != "eval":
        return None
    if not isinstance(schedule, Phases) and not is_kept:
        return None  # a search for a learning rate has few steps
    if held.start and any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None  # what is evaluated then is another encoder, an average of this one and of what it was
    frozen = {*group_parameters(gather_groups(trainer.optimizers[0])[: held.first])}
    return held if all(parameter in frozen for parameter in _encoding_parameters(task.model)) else None


def _encoding_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of all but the head."""
    return [parameter for part in model.children() if part is not model.head for parameter in part.parameters()]


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
