"""A frozen encoder that sees each image once."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ..data.features import (
    FeatureDataset,
    collate_with_rest,
    dataset_of,
    loader_of_features,
    single_images,
)
from ..data.loader import SeededLoader
from ..encoders.backbone import evaluating
from ..params import gather_groups, group_parameters
from .phases import Phases


class FeatureCache(L.Callback):
    """Encodes the training and validation images once, and trains on their features while the encoder is frozen.

    It works beside `Phases` and its recipes (`FineTune` and others): where a phase trains nothing but the head and has
    `norm="eval"`, so that the encoder gives the same features in every epoch, the loaders give these for as long as it
    lasts, and images again afterwards. What is kept is what the head pools, in memory. Of pairs, each image is encoded
    once, however many pairs it is in. Epochs that a phase has only a part of are trained on images.

    Args:
        views: How many times to augment and encode each training image; one of them is drawn whenever it comes up.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: If the task's model has no features to cache.
        ValueError: If no schedule freezes, or the loaders make no batches of a map-style data set.
    """

    def __init__(self, views: int = 1, *, progress: bool = True) -> None:
        if views < 1:
            raise ValueError(f"Expected `views` to be at least 1, but got {views}")
        self.views, self.progress = views, progress
        self._images: list[list[DataLoader[Any]]] = []
        self._features: list[list[DataLoader[Any]]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks that there will be something to cache."""
        if not any(isinstance(callback, Phases) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError("Expected a schedule that freezes the encoder, such as `FineTune`, beside `FeatureCache`")
        if not (hasattr(pl_module, "takes_features") and hasattr(pl_module.model, "from_features")):
            model = type(getattr(pl_module, "model", pl_module)).__name__
            raise TypeError(f"Expected a task whose model has features to cache, as `ImageModel` has, but got {model}")
        self._images, self._features = [], []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the loaders of this epoch give features, or images."""
        task: Any = pl_module
        cached = self._is_frozen(trainer, pl_module)
        if cached == task.takes_features:
            return
        if cached and not self._features:
            self._encode(trainer, pl_module)
        for loop, loaders in zip(_loops(trainer), self._features if cached else self._images, strict=True):
            loop._combined_loader.flattened = loaders
            for loader in loaders:
                _set_epoch(loader, trainer.current_epoch)
        fetcher = trainer.fit_loop._data_fetcher
        if fetcher is not None:
            fetcher.setup(trainer.fit_loop._combined_loader)  # type: ignore[arg-type]
            iter(fetcher)
        task.takes_features = cached

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the task take images again."""
        self._forget(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget(pl_module)

    def _forget(self, task: Any) -> None:
        self._images, self._features = [], []
        if hasattr(task, "takes_features"):
            task.takes_features = False

    def _is_frozen(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Tells whether all steps of the epoch to come leave the encoder as it is."""
        phases = next(callback for callback in trainer.callbacks if isinstance(callback, Phases))  # type: ignore[attr-defined]
        steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        stretch = phases.stretch_of(trainer.global_step, trainer.global_step + steps)
        if stretch is None or stretch.norm != "eval":
            return False
        frozen = {*group_parameters(gather_groups(trainer.optimizers[0])[: stretch.first])}
        encoder: nn.Module = pl_module.model.encoder  # type: ignore[assignment, union-attr]
        return all(parameter in frozen for parameter in encoder.parameters())

    def _encode(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for loop in _loops(trainer):
            loaders: list[DataLoader[Any]] = [*loop._combined_loader.flattened]
            name = "training" if loop is trainer.fit_loop else "validation"
            views = self.views if loop is trainer.fit_loop else 1
            self._images.append(loaders)
            self._features.append(
                [loader_of_features(each, self._features_of(trainer, pl_module, each, views, name)) for each in loaders]
            )

    def _features_of(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loader: DataLoader[Any], views: int, name: str
    ) -> FeatureDataset:
        """Encodes this process's share of the images, and gathers those of all."""
        dataset = dataset_of(loader)
        images = single_images(dataset)
        if images is dataset and getattr(pl_module, "num_inputs", 1) > 1:
            raise ValueError(
                f"Expected loaders of `PairedImages`, for the images of pairs to be cached, but got "
                f"{type(dataset).__name__}"
            )
        count, world = len(images), trainer.world_size  # type: ignore[arg-type]
        # as many in each process, the first ones once more
        rows = [(trainer.global_rank + i * world) % count for i in range(-(-count // world))]
        bar = tqdm(
            desc=f"encoding {name} images",
            total=views * len(rows),
            unit="image",
            disable=not (self.progress and trainer.is_global_zero),
        )
        parts, rest = [], None
        with bar:
            for view in range(views):
                features, rest = _encoded(trainer, pl_module, Subset(images, rows), loader, view, bar)
                parts.append(features)
        shares: list[Any] = [(torch.stack(parts), rest)]
        if world > 1:
            shares = [None] * world
            dist.all_gather_object(shares, (torch.stack(parts), rest))
        places = [(i % world, i // world) for i in range(count)]
        return FeatureDataset(
            torch.stack([shares[rank][0][:, place] for rank, place in places], dim=1),
            None if rest is None else [shares[rank][1][place] for rank, place in places],
        )


def _encoded(
    trainer: L.Trainer,
    pl_module: L.LightningModule,
    images: Dataset[Any],
    loader: DataLoader[Any],
    view: int,
    bar: "tqdm[Any]",
) -> tuple[Tensor, list[tuple[Any, ...]] | None]:
    """Returns the features `(n, ...)` of a data set's images, and what follows the image in each sample."""
    batches = SeededLoader(
        images,
        loader.batch_size or 64,
        shuffle=False,
        seed=view,
        num_workers=loader.num_workers,
        collate_fn=collate_with_rest,
    )
    features: list[Tensor] = []
    rest: list[tuple[Any, ...]] | None = None
    model: Any = pl_module.model
    with evaluating(model), torch.no_grad(), trainer.precision_plugin.forward_context():
        for batch, others in batches:
            features.append(model.features(batch.to(pl_module.device)).float().cpu())
            rest = others if rest is None or others is None else [*rest, *others]
            bar.update(len(batch))
    return torch.cat(features), rest


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
