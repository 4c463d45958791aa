"""The features of a data set's images, by the encoder of a task that is being fitted."""

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.features import FeatureDataset, collate_with_rest, dataset_of, single_images
from ..data.loader import SeededLoader
from ..encoders.backbone import evaluating
from ..losses.structural import at_least_float32


def encode_images(
    trainer: L.Trainer, task: Any, loader: DataLoader[Any], views: int, name: str, progress: bool
) -> FeatureDataset:
    """Encodes the images of a loader's data set, each process its share, and gathers them.

    Args:
        trainer: A trainer that fits.
        task: Its task, with a `model.features`.
        loader: The loader.
        views: How many times to augment and encode each image.
        name: What the images are for, in the progress bar.
        progress: Whether to show one.

    Raises:
        ValueError: If the samples of a task for pairs are not `PairedImages`.
        TypeError: If a sample does not begin with an image.
    """
    dataset = dataset_of(loader)
    images = single_images(dataset)
    if images is dataset and getattr(task, "num_inputs", 1) > 1:
        raise ValueError(
            f"Expected loaders of `PairedImages`, for the images of pairs to be cached, but got "
            f"{type(dataset).__name__}"
        )
    count, world = len(images), trainer.world_size  # type: ignore[arg-type]
    seed = loader.sampler.seed if isinstance(loader, SeededLoader) else torch.initial_seed()
    bar = tqdm(
        desc=f"encoding {name} images",
        total=views * -(-count // world),
        unit="image",
        disable=not (progress and trainer.is_global_zero),
    )
    with bar:
        passes = [_encoded(trainer, task, images, loader, hash((seed, view)) % 2**62, bar) for view in range(views)]
    features, rest = torch.stack([part for part, _ in passes]), passes[0][1]
    if world > 1:
        shares: list[Any] = [None] * world
        dist.all_gather_object(shares, (features, rest))
        features = features.new_empty(views, count, *features.shape[2:])
        for rank, (share, _) in enumerate(shares):
            # the last of some processes is there to make all shares equal
            features[:, rank::world] = share[:, : len(range(rank, count, world))]
        rest = rest and [shares[i % world][1][i // world] for i in range(count)]
    return FeatureDataset(features, rest)


def _encoded(
    trainer: L.Trainer, task: Any, images: Dataset[Any], loader: DataLoader[Any], seed: int, bar: "tqdm[Any]"
) -> tuple[Tensor, list[tuple[Any, ...]] | None]:
    """Returns the features `(n, ...)` of this process's share, and what follows the image in each sample."""
    batches = SeededLoader(
        images,
        loader.batch_size or 64,
        shuffle=False,
        seed=seed,
        num_replicas=trainer.world_size,
        rank=trainer.global_rank,
        num_workers=loader.num_workers,
        collate_fn=collate_with_rest,
    )
    plugin = trainer.precision_plugin
    features, place = torch.empty(0), 0
    rest: list[tuple[Any, ...]] | None = None
    with evaluating(task.model), torch.no_grad(), plugin.forward_context():
        for batch, others in batches:
            found = at_least_float32(task.model.features(plugin.convert_input(batch.to(task.device)))).cpu()
            if not place:
                features = found.new_empty(len(batches.sampler), *found.shape[1:])
            features[place : place + len(found)] = found
            place += len(found)
            if others is not None:
                rest = rest or []
                rest += others
            bar.update(len(found))
    return features, rest
