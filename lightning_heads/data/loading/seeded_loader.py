"""A training loader that can be taken up again in the middle of an epoch."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info


class SeededLoader(DataLoader[Any]):
    """Deals out a data set in batches, where order and augmentation are a function of seed, epoch and sample alone.

    They do not depend on how many workers there are, nor on what else drew random numbers, and a run that is resumed in
    the middle of an epoch goes on with the next batch. Lightning keeps the loader's state in its checkpoints.

    Args:
        dataset: A map-style data set. Python's, NumPy's and torch's generators are seeded for each sample.
        batch_size: Samples a batch, in each process.
        shuffle: Whether each epoch has an order of its own.
        batches: Makes the batches of an epoch, as lists of indices, from a seed: always as many, each of `batch_size`,
            as `ClassBatches` does. Processes take whole batches in turn, and what a sample draws depends on its place
            in the epoch too. By default the whole data set is dealt out.
        seed: Seed; drawn from torch's generator by default, and the checkpoint's in a resumed run.
        num_replicas: Number of processes that share the data set.
        rank: Which of them this is.
        **settings: Further settings of torch's `DataLoader`, such as `num_workers`.

    >>> from torch.utils.data import TensorDataset
    >>> loader = SeededLoader(TensorDataset(torch.arange(6)), 2, seed=0)
    >>> batches = [batch[0].tolist() for batch in loader]
    >>> resumed = SeededLoader(TensorDataset(torch.arange(6)), 2)
    >>> resumed.load_state_dict({"seed": 0, "epoch": 0, "batches": 1, "batch_size": 2})
    >>> [batch[0].tolist() for batch in resumed] == batches[1:]
    True
    """

    sampler: "_SeededSampler"

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 1,
        *,
        shuffle: bool = True,
        batches: Callable[[int], list[list[int]]] | None = None,
        seed: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
        **settings: Any,
    ) -> None:
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"Expected a map-style `dataset`, but {type(dataset).__name__} has no length")
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        sampler = _SeededSampler(dataset, num_replicas, rank, shuffle, seed)
        if batches is not None:
            sampler = _BatchesSampler(dataset, num_replicas, rank, shuffle, seed, batches)
        # with a generator of its own it draws nothing from the global one
        settings.setdefault("generator", torch.Generator().manual_seed(seed % 2**32))
        super().__init__(_SeededDataset(dataset), batch_size, sampler=sampler, **settings)
        self._batches, self._size = 0, batch_size
        self._resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # the trainer says which epoch it is between asking for this iterator and its first batch
        skipped = 0
        if self._resumed is not None and self._resumed["epoch"] == self.sampler.epoch:
            skipped = self._resumed["batches"] * self._resumed["batch_size"]
            if isinstance(self.sampler, _BatchesSampler):  # whose batches must stay whole
                skipped -= skipped % self._size
        self._resumed = None
        self.sampler.skipped = skipped
        self._batches = skipped // self._size
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def with_dataset(self, dataset: Dataset[Any]) -> "SeededLoader":
        """Returns a loader of another data set of the same length, which stands where this one does.

        It reads in the process itself.
        """
        sampler = self.sampler
        other = SeededLoader(
            dataset,
            self._size,
            shuffle=sampler.shuffle,
            batches=sampler.batches if isinstance(sampler, _BatchesSampler) else None,
            seed=sampler.seed,
            num_replicas=sampler.num_replicas,
            rank=sampler.rank,
            drop_last=self.drop_last,
            collate_fn=self.collate_fn,
            pin_memory=self.pin_memory,
        )
        other.copy_position(self)
        return other

    def copy_position(self, other: "SeededLoader") -> None:
        """Takes the place of another loader of as many samples: its epoch, and the batches of it that are done."""
        self.sampler.set_epoch(other.sampler.epoch)
        self._batches, self._resumed = other._batches, other._resumed

    @property
    def samples(self) -> Dataset[Any]:
        """The data set that was passed."""
        return self.dataset.dataset  # type: ignore[attr-defined, no-any-return]

    def state_dict(self) -> dict[str, int]:
        """Returns where the loader stands: its seed, the epoch, and the batches of it that are done."""
        return {
            "seed": self.sampler.seed,
            "epoch": self.sampler.epoch,
            "batches": self._batches,
            "batch_size": self._size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from `state_dict`, where the trainer asks for the same epoch, or else from the start of another."""
        self.sampler.seed = state["seed"]
        self._resumed = state


def seeded_rows(
    dataset: Dataset[Any], rows: list[int], seeds: list[int], batch_size: int, **settings: Any
) -> DataLoader[Any]:
    """Deals out some samples of a data set, in order, each with random numbers by its seed and its index alone.

    Args:
        dataset: A map-style data set.
        rows: Indices of the samples.
        seeds: A seed for each of them.
        batch_size: Samples a batch.
        **settings: Further settings of torch's `DataLoader`.
    """
    keys = [(row, hash((seed, row)) % 2**32) for row, seed in zip(rows, seeds, strict=True)]
    # with a generator of its own it draws nothing from the global one
    return DataLoader(_SeededDataset(dataset), batch_size, sampler=keys, generator=torch.Generator(), **settings)


class _SeededSampler(DistributedSampler[tuple[int, int]]):
    """Gives each index with the seed of its sample; a distributed sampler, so that Lightning leaves it as it is."""

    def __init__(self, dataset: Dataset[Any], num_replicas: int, rank: int, shuffle: bool, seed: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed)
        self.skipped = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start, self.skipped = self.skipped, 0
        yield from islice(self.keys(), start, None)

    def keys(self) -> list[tuple[int, int]]:
        indices = [int(index) for index in super().__iter__()]  # type: ignore[call-overload]
        return [(index, hash((self.seed, self.epoch, index)) % 2**32) for index in indices]


class _BatchesSampler(_SeededSampler):
    """Gives the samples of batches that are made for an epoch, as many in each process."""

    def __init__(
        self,
        dataset: Dataset[Any],
        num_replicas: int,
        rank: int,
        shuffle: bool,
        seed: int,
        batches: Callable[[int], list[list[int]]],
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed)
        self.batches = batches
        self.num_samples = len(self.keys())

    def keys(self) -> list[tuple[int, int]]:
        batches = self.batches(self.seed + self.epoch * self.shuffle)
        count = -(-len(batches) // self.num_replicas) * self.num_replicas
        return [
            (index, hash((self.seed, self.epoch, index, number, place)) % 2**32)
            for number in range(self.rank, count, self.num_replicas)
            for place, index in enumerate(batches[number % len(batches)])
        ]


class _SeededDataset(Dataset[Any]):
    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        """Returns the samples of a batch."""
        with nullcontext() if get_worker_info() is not None else _random_state_kept():
            return [self._sample(*key) for key in keys]

    def _sample(self, index: int, seed: int) -> Any:
        _seed(seed)
        return self.dataset[index]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # a sample is made on the CPU
