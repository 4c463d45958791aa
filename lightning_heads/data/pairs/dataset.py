"""Images two by two, and how pairs of them are drawn."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..images.dataset import ImageDataset


class Pair(NamedTuple):
    """Indices of two images, and whether they are of one class, or None where that is unknown."""

    first: int
    second: int
    same: bool | None


class PairPaths(NamedTuple):
    """The files of a pair."""

    first: Path
    second: Path


class DrawnPairs:
    """A pair for each image: itself, and a partner that is drawn whenever the pair is asked for.

    The partner is another image of its class, or an image of another class, which is drawn before the image, so that
    large classes are no likelier than small ones. Draws come from torch's generator.

    >>> pairs = DrawnPairs(torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> [pair.first for pair in pairs.fixed(seed=0)]
    [0, 1, 2, 3, 4, 5]

    Args:
        labels: The class of each image, `(n,)`.
        same_fraction: Probability of a partner of the same class. An image that is the only one of its class always
            gets one of another.
        nearest: Images of other classes that are hard to tell from each image, `(n, k)`; see `nearest_of_others`.
        hard_negative_fraction: Share of the partners of another class that is drawn from `nearest`.

    Raises:
        ValueError: If a fraction is out of range, there is one class alone, or no class has two images.
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
            raise ValueError("Expected images of two classes or more, as there are no different pairs within one")
        if counts.max() < 2:
            raise ValueError("Expected a class with two images or more, as there are no same pairs without")
        order = self.labels.argsort(stable=True)
        self.members = order.split(counts.tolist())
        self.places = torch.empty_like(order)  # of each image in its class
        self.places[order] = torch.cat([torch.arange(count) for count in counts.tolist()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pair:
        has_another = len(self.members[int(self.labels[index])]) > 1
        return self._draw(index, has_another and float(torch.rand(())) < self.same_fraction)

    def fixed(self, seed: int) -> list[Pair]:
        """Draws the pairs once, the share of same ones as near as can be, and leaves torch's generator as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            order = torch.randperm(len(self)).tolist()
            able = [index for index in order if len(self.members[int(self.labels[index])]) > 1]
            same = {*able[: max(1, round(self.same_fraction * len(self)))]}
            return [self._draw(index, index in same) for index in range(len(self))]

    def _draw(self, index: int, same: bool) -> Pair:
        label = int(self.labels[index])
        if same:
            members = self.members[label]
            return Pair(index, int(members[_other(len(members), int(self.places[index]))]), True)
        if self.nearest is not None and float(torch.rand(())) < self.hard_negative_fraction:
            nearest = self.nearest[index]
            return Pair(index, int(nearest[_below(len(nearest))]), False)
        others = self.members[_other(len(self.members), label)]
        return Pair(index, int(others[_below(len(others))]), False)


class PairedImages(Dataset[Any]):
    """Images two by two: gives `(image1, image2, same)`, or `(image1, image2)` of pairs of which that is unknown.

    Args:
        images: The single images.
        pairs: Which of them to put together: `DrawnPairs`, or a list.

    Attributes:
        paths: The files of each pair of a list; None where pairs are drawn.
    """

    def __init__(self, images: ImageDataset, pairs: DrawnPairs | list[Pair]) -> None:
        self.images: Dataset[Any] = images
        self.pairs = pairs
        self.paths: list[PairPaths] | None = None
        if isinstance(pairs, list):
            self.paths = [PairPaths(images.paths[pair.first], images.paths[pair.second]) for pair in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        first, second, same = self.pairs[index]
        images = self.images[first], self.images[second]
        return images if same is None else (*images, torch.tensor(same))


def nearest_of_others(embeddings: Tensor, labels: Tensor, count: int) -> Tensor:
    """Returns the indices `(n, count)` of the images of other classes whose embeddings are the nearest, by cosine.

    Where classes leave fewer others, there are as many as the largest leaves.

    Args:
        embeddings: An embedding of each image, `(n, d)`, of length one.
        labels: The class of each image, `(n,)`.
        count: How many to find.
    """
    count = min(count, len(labels) - int(torch.unique(labels, return_counts=True)[1].max()))
    found = []
    for start in range(0, len(labels), 256):
        rows = slice(start, start + 256)
        scores = (embeddings[rows] @ embeddings.T).masked_fill(labels[rows, None] == labels, -torch.inf)
        found.append(scores.topk(count).indices)
    return torch.cat(found)


def _other(count: int, excluded: int) -> int:
    drawn = _below(count - 1)
    return drawn + (drawn >= excluded)


def _below(count: int) -> int:
    return int(torch.randint(count, ()))
