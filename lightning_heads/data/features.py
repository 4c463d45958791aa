"""Features in place of images."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from .loader import SeededLoader
from .pairs import PairedImages


class FeatureDataset(Dataset[Any]):
    """What was made of the images of a data set, with what else its samples hold.

    Args:
        features: The features, `(views, n, ...)`; of several views, one is drawn from torch's generator at each access.
        rest: What follows the image in each sample, or None where the samples are images alone.
    """

    def __init__(self, features: Tensor, rest: list[tuple[Any, ...]] | None) -> None:
        self.features, self.rest = features, rest

    def __len__(self) -> int:
        return self.features.shape[1]

    def __getitem__(self, index: int) -> Any:
        view = int(torch.randint(len(self.features), ())) if len(self.features) > 1 else 0
        features = self.features[view, index]
        return features if self.rest is None else (features, *self.rest[index])


def dataset_of(loader: DataLoader[Any]) -> Dataset[Any]:
    """Returns the data set that a loader was made for."""
    return loader.samples if isinstance(loader, SeededLoader) else loader.dataset


def single_images(dataset: Dataset[Any]) -> Dataset[Any]:
    """Returns the data set whose samples begin with one image: of pairs, that which they are put together from."""
    return dataset.images if isinstance(dataset, PairedImages) else dataset


def loader_of_features(loader: DataLoader[Any], features: FeatureDataset) -> DataLoader[Any]:
    """Returns a loader like another, with the same samples in the same order, but of features."""
    dataset: Any = dataset_of(loader)
    if isinstance(dataset, PairedImages):
        paired = copy.copy(dataset)
        paired.images = features
        dataset = paired
    else:
        dataset = features
    if isinstance(loader, SeededLoader):
        return loader.over(dataset)
    return DataLoader(
        dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory
    )


def check_loader(loader: DataLoader[Any]) -> None:
    """Raises ValueError unless a loader makes plain batches of a map-style data set."""
    if loader.batch_sampler is None or not hasattr(loader.dataset, "__len__"):
        raise ValueError("Expected loaders that make batches of a map-style data set, for their features to be cached")
    if loader.collate_fn is not default_collate:
        raise ValueError("Expected loaders without a `collate_fn` of their own, as images are encoded one by one")


def collate_with_rest(samples: list[Any]) -> tuple[Tensor, list[tuple[Any, ...]] | None]:
    """Makes a batch of the images and a list of what follows each.

    Raises:
        TypeError: If a sample neither is an image nor begins with one.
    """
    first = samples[0][0] if isinstance(samples[0], (tuple, list)) and samples[0] else samples[0]
    if not isinstance(first, Tensor):
        raise TypeError(
            f"Expected samples of images, or of an image and what follows, to cache features of, but got "
            f"{type(samples[0]).__name__}"
        )
    if isinstance(samples[0], Tensor):
        return torch.stack(samples), None
    return torch.stack([sample[0] for sample in samples]), [tuple(sample[1:]) for sample in samples]
