"""Batches with several images of each of their classes."""

from collections.abc import Sequence
from random import Random


class ClassBatches:
    """Batches for metric learning, P x K: `images_per_class` images of each of as many classes as fill a batch.

    In an epoch, of as many batches as the data set fills, classes take turns, each as often as the others, however many
    images it has; and so do the images within a class. A class with too few images repeats them.

    Hermans, Beyer and Leibe, "In defense of the triplet loss for person re-identification" (2017), who draw classes and
    images at random instead.

    >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
    >>> batches = ClassBatches(labels, batch_size=4, images_per_class=2)(seed=0)
    >>> [[labels[index] for index in sorted(batch)] for batch in batches]
    [[0, 0, 1, 1], [0, 0, 1, 1]]

    Args:
        labels: The class of each sample.
        batch_size: Images a batch.
        images_per_class: How many of them are of each class.

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
        """Returns the samples of each batch of an epoch, as the seed has it."""
        random = Random(seed)
        classes = _Shuffler([*self.by_class], random)
        images = {label: _Shuffler(indices, random) for label, indices in self.by_class.items()}
        return [
            [i for label in classes.deal(self.classes_per_batch) for i in images[label].deal(self.images_per_class)]
            for _ in range(self.count)
        ]


class _Shuffler:
    """Cards dealt at random, all of them before any is dealt again; a hand has no card twice if there are enough."""

    def __init__(self, cards: list[int], random: Random) -> None:
        self.cards, self.random = cards, random
        self.rest: list[int] = []

    def deal(self, count: int) -> list[int]:
        hand: list[int] = []
        while len(hand) < count:
            if not self.rest:
                # what is in the hand already comes last
                self.rest = sorted(self.random.sample(self.cards, len(self.cards)), key=hand.__contains__)
            needed = count - len(hand)
            hand += self.rest[:needed]
            self.rest = self.rest[needed:]
        return hand
