"""Data set of pairs of images, and random pairs."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..images.dataset import ImageDataset


class Pair(NamedTuple):
    """Indices of two images, and whether they are of one class, or None if that is unknown."""

    first: int
    second: int
    same: bool | None


class PairPaths(NamedTuple):
    """The files of a pair."""

    first: Path
    second: Path


class DrawnPairs:
    """Random pairs, one per image: the image, and a partner that is drawn at each access.

    The partner is another image of the same class, or an image of another class. In the latter case the class is drawn
    first, then an image of it, so that large and small classes are equally likely. Random numbers are drawn from
    torch's generator.

    >>> pairs = DrawnPairs(torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> [pair.first for pair in pairs.fixed(seed=0)]
    [0, 1, 2, 3, 4, 5]

    Args:
        labels: The class of each image, `(n,)`.
        same_fraction: Probability of a partner of the same class. The partner of an image that is alone in its class
            is always of another class.
        nearest: Indices of the hard negatives of each image, `(n, k)`; see `nearest_of_others`.
        hard_negative_fraction: Fraction of the partners of another class that is drawn from `nearest`.

    Raises:
        ValueError: If a fraction is out of range, there are fewer than two classes, or no class has two images.
    """

    def __init__(
        self,
        labels: Tensor,
        same_fraction: float = 0.5,
        *,
        nearest: Tensor | None = None,
        hard_negative_fraction: float = 0.0,
    ) -> None:
        if not 0 < same_fraction < 1:
            raise ValueError(f"Expected `same_fraction` to be between 0 and 1, but got {same_fraction}")
        if not 0 <= hard_negative_fraction <= 1:
            raise ValueError(f"Expected `hard_negative_fraction` to be from 0 to 1, but got {hard_negative_fraction}")
        if hard_negative_fraction and nearest is None:
            raise ValueError(
                f"Expected `nearest` for `hard_negative_fraction` of {hard_negative_fraction}, but got None"
            )
        self.same_fraction, self.nearest, self.hard_negative_fraction = same_fraction, nearest, hard_negative_fraction
        _, self.labels, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            raise ValueError(
                f"Expected images of two classes or more for pairs of different classes, but got {len(counts)}"
            )
        if counts.max() < 2:
            raise ValueError(
                "Expected a class with two images or more for pairs of one class, but every class has one image"
            )
        order = self.labels.argsort(stable=True)
        self.members = order.split(counts.tolist())
        self.places = torch.empty_like(order)  # position of each image within its class
        self.places[order] = torch.cat([torch.arange(count) for count in counts.tolist()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pair:
        has_another = len(self.members[int(self.labels[index])]) > 1
        return self._draw(index, has_another and float(torch.rand(())) < self.same_fraction)

    def fixed(self, seed: int) -> list[Pair]:
        """Draws pairs with `same_fraction` kept as closely as possible, and leaves torch's generator unchanged."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            order = torch.randperm(len(self)).tolist()
            candidates = [index for index in order if len(self.members[int(self.labels[index])]) > 1]
            same = {*candidates[: max(1, round(self.same_fraction * len(self)))]}
            return [self._draw(index, index in same) for index in range(len(self))]

    def _draw(self, index: int, same: bool) -> Pair:
        label = int(self.labels[index])
        if same:
            members = self.members[label]
            return Pair(index, int(members[_random_index_except(len(members), int(self.places[index]))]), True)
        if self.nearest is not None and float(torch.rand(())) < self.hard_negative_fraction:
            nearest = self.nearest[index]
            return Pair(index, int(nearest[_random_index(len(nearest))]), False)
        others = self.members[_random_index_except(len(self.members), label)]
        return Pair(index, int(others[_random_index(len(others))]), False)


class PairedImages(Dataset[Any]):
    """Data set of pairs of images: returns `(image1, image2, same)`, or `(image1, image2)` if `same` is unknown.

    Args:
        images: Data set of the single images.
        pairs: The pairs as indices of images: `DrawnPairs`, or a list.
        with_classes: Whether to return the class indices `(2,)` of both images last; only with `DrawnPairs`.

    Raises:
        ValueError: If `with_classes` is set for a list of pairs.

    Attributes:
        paths: The files of each pair of a list; None if pairs are drawn.
    """

    def __init__(self, images: ImageDataset, pairs: DrawnPairs | list[Pair], with_classes: bool = False) -> None:
        self.images: Dataset[Any] = images
        self.pairs = pairs
        self.labels: Tensor | None = None
        if with_classes:
            if isinstance(pairs, list):
                raise ValueError("Expected `DrawnPairs`, which have classes, for `with_classes`, but got a list")
            self.labels = pairs.labels
        self.paths: list[PairPaths] | None = None
        if isinstance(pairs, list):
            self.paths = [PairPaths(images.paths[pair.first], images.paths[pair.second]) for pair in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        first, second, same = self.pairs[index]
        images = self.images[first], self.images[second]
        if same is None:
            return images
        classes = (self.labels[[first, second]],) if self.labels is not None else ()
        return (*images, torch.tensor(same), *classes)


def nearest_of_others(embeddings: Tensor, labels: Tensor, count: int) -> Tensor:
    """Returns the indices `(n, count)` of the nearest images of other classes, by cosine similarity of embeddings.

    If fewer images are outside the largest class, `count` is their number.

    Args:
        embeddings: An embedding of each image, `(n, d)`, of unit length.
        labels: The class of each image, `(n,)`.
        count: Number of images to find for each.
    """
    count = min(count, len(labels) - int(torch.unique(labels, return_counts=True)[1].max()))
    found = []
    for start in range(0, len(labels), 256):
        rows = slice(start, start + 256)
        scores = (embeddings[rows] @ embeddings.T).masked_fill(labels[rows, None] == labels, -torch.inf)
        found.append(scores.topk(count).indices)
    return torch.cat(found)


def _random_index_except(count: int, excluded: int) -> int:
    """Draws an index below `count` other than `excluded`."""
    drawn = _random_index(count - 1)
    return drawn + (drawn >= excluded)


def _random_index(count: int) -> int:
    """Draws an index below `count`."""
    return int(torch.randint(count, ()))
