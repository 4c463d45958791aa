"""Data sets and loaders of cached features in place of images."""

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ...utils.tensors import at_least_float32
from ..loading.seeded_loader import SeededLoader
from ..pairs.dataset import PairedImages


class FeatureDataset(Dataset[Any]):
    """Features of the images of a data set, each with what follows the image in its sample, such as the target.

    Args:
        features: The features, `(views, n, ...)`; of several views, one is drawn by torch's generator at each access.
        rest: Maps the index of a sample to what follows its image.
        owner: Object kept alive with the features, such as their temporary directory.
    """

    def __init__(self, features: Tensor, rest: Callable[[int], tuple[Any, ...]], owner: object = None) -> None:
        self.features, self.rest, self.owner = features, rest, owner

    def __len__(self) -> int:
        return self.features.shape[1]

    def __getitem__(self, index: int) -> Any:
        view = int(torch.randint(len(self.features), ())) if len(self.features) > 1 else 0
        features, rest = at_least_float32(self.features[view, index]), self.rest(index)
        return (features, *rest) if rest else features


@runtime_checkable
class CacheableDataset(Protocol):
    """A data set of images that identifies its images and returns their targets without reading image files."""

    def image_key(self) -> object:
        """Returns an object whose fingerprint is equal for equal images."""
        ...

    def extras(self, index: int) -> tuple[Any, ...]:
        """Returns what follows the image in a sample, such as the target."""
        ...


def dataset_of(loader: DataLoader[Any]) -> Dataset[Any]:
    """Returns the data set that was passed to a loader."""
    return loader.samples if isinstance(loader, SeededLoader) else loader.dataset


def image_dataset(dataset: Dataset[Any]) -> Dataset[Any]:
    """Returns the data set of single images: that of `PairedImages` from which pairs are formed, else the data set."""
    return dataset.images if isinstance(dataset, PairedImages) else dataset


def loader_of_features(loader: DataLoader[Any], features: FeatureDataset) -> DataLoader[Any]:
    """Returns a copy of a loader with the same samples in the same order, but features in place of images."""
    dataset: Any = dataset_of(loader)
    if isinstance(dataset, PairedImages):
        paired = copy.copy(dataset)
        paired.images = features
        dataset = paired
    else:
        dataset = features
    if isinstance(loader, SeededLoader):
        return loader.with_dataset(dataset)
    return DataLoader(
        dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory
    )


def check_loader(loader: DataLoader[Any]) -> None:
    """Raises ValueError unless a loader batches a map-style data set with torch's default collate function."""
    is_map_style = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if not is_map_style or loader.batch_sampler is None:
        of = f" of {type(loader.dataset).__name__}" if isinstance(loader, DataLoader) else ""
        raise ValueError(
            "Expected `DataLoader`s that make batches of a map-style data set, for their features to be cached, but "
            f"got {type(loader).__name__}{of}"
        )
    if loader.collate_fn is not default_collate:
        raise ValueError("Expected loaders without a `collate_fn` of their own, as images are encoded one by one")


def collate_with_rest(samples: list[Any]) -> tuple[Tensor, list[tuple[Any, ...]]]:
    """Stacks the images of samples to `(b, c, h, w)`, and lists what follows the image in each sample.

    Raises:
        TypeError: If a sample neither is an image nor begins with one.
    """
    split = [tuple(sample) if isinstance(sample, (tuple, list)) else (sample,) for sample in samples]
    if not (split[0] and isinstance(split[0][0], Tensor)):
        raise TypeError(
            f"Expected samples that are an image tensor or begin with one, for features to be cached, but got "
            f"{type(samples[0]).__name__}"
        )
    return torch.stack([sample[0] for sample in split]), [sample[1:] for sample in split]
