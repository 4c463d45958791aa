"""Batches of several images of each of several classes, for metric learning."""

from collections.abc import Sequence
from random import Random


class ClassBatches:
    """P x K batches for metric learning: K = `images_per_class` images of each of P = `batch_size` / K classes.

    An epoch has as many batches as the data set fills. Classes are drawn without replacement and reshuffled when all
    have been drawn, so that each occurs equally often, however many images it has; so are the images within a class. A
    class with too few images repeats them.

    Hermans, Beyer and Leibe, "In defense of the triplet loss for person re-identification" (2017), who draw classes and
    images at random instead.

    >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> batches = ClassBatches(labels, batch_size=4, images_per_class=2)(seed=0)
    >>> [[labels[index] for index in sorted(batch)] for batch in batches]
    [[0, 0, 1, 1], [0, 0, 1, 1]]

    Args:
        labels: The class of each sample.
        batch_size: Images per batch.
        images_per_class: Images of each class in a batch.

    Raises:
        ValueError: If `images_per_class` is less than 2 or does not divide `batch_size`, or a batch needs more classes
            than there are.
    """

    def __init__(self, labels: Sequence[int], batch_size: int, images_per_class: int) -> None:
        if images_per_class < 2 or batch_size % images_per_class:
            raise ValueError(
                f"Expected `images_per_class` to be 2 or more and to divide the batch size of {batch_size}, but got "
                f"{images_per_class}"
            )
        self.by_class: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            self.by_class.setdefault(label, []).append(index)
        self.images_per_class, self.classes_per_batch = images_per_class, batch_size // images_per_class
        if self.classes_per_batch > len(self.by_class):
            raise ValueError(
                f"Expected {self.classes_per_batch} classes for batches of {batch_size} with {images_per_class} images "
                f"of each, but there are {len(self.by_class)}"
            )
        self.count = max(len(labels) // batch_size, 1)

    def __call__(self, seed: int) -> list[list[int]]:
        """Returns the indices of the samples in each batch of an epoch, which depend on the seed."""
        random = Random(seed)
        classes = _Shuffler([*self.by_class], random)
        images = {label: _Shuffler(indices, random) for label, indices in self.by_class.items()}
        return [
            [i for label in classes.draw(self.classes_per_batch) for i in images[label].draw(self.images_per_class)]
            for _ in range(self.count)
        ]


class _Shuffler:
    """Draws items at random without replacement, and reshuffles them when exhausted.

    A draw has no item twice if there are enough items.
    """

    def __init__(self, items: list[int], random: Random) -> None:
        self.items, self.random = items, random
        self.remaining: list[int] = []

    def draw(self, count: int) -> list[int]:
        drawn: list[int] = []
        while len(drawn) < count:
            if not self.remaining:
                # items of this draw come last, so that they are not repeated within it
                self.remaining = sorted(self.random.sample(self.items, len(self.items)), key=drawn.__contains__)
            needed = count - len(drawn)
            drawn += self.remaining[:needed]
            self.remaining = self.remaining[needed:]
        return drawn
