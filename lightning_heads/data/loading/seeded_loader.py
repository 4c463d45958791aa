"""A seeded data loader that resumes in the middle of an epoch."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info


class SeededLoader(DataLoader[Any]):
    """Data loader whose order and augmentation depend only on the seed, the epoch and the sample.

    They depend neither on the number of workers nor on other uses of the random generators, and a run that is resumed
    in the middle of an epoch continues with the next batch. Lightning saves the loader's state in its checkpoints.

    Args:
        dataset: A map-style data set. Python's, NumPy's and torch's generators are seeded before each sample is read.
        batch_size: Samples per batch, in each process.
        shuffle: Whether to shuffle the samples anew in each epoch.
        batches: Function from a seed to the batches of an epoch, as lists of indices: always the same number of
            batches, each of `batch_size`, such as `ClassBatches`. Whole batches are distributed over the processes in
            turn, and the random numbers of a sample also depend on its position in the epoch. By default each epoch
            covers the whole data set.
        seed: Seed; by default drawn from torch's generator, and replaced by the checkpoint's in a resumed run.
        num_replicas: Number of processes that the samples are distributed over.
        rank: Rank of this process.
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
        # with its own generator the loader draws nothing from the global one
        settings.setdefault("generator", torch.Generator().manual_seed(seed % 2**32))
        super().__init__(_SeededDataset(dataset), batch_size, sampler=sampler, **settings)
        self._batches_done, self._batch_size = 0, batch_size
        self._resumed_state: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # this runs at the first batch, as the trainer sets the epoch only after it has asked for the iterator
        skipped = 0
        state = self._resumed_state
        if state is not None and state["epoch"] == self.sampler.epoch:
            skipped = state["batches"] * state["batch_size"]
            if isinstance(self.sampler, _BatchesSampler):  # whose batches must not be split
                skipped -= skipped % self._batch_size
        self._resumed_state = None
        self.sampler.skipped = skipped
        self._batches_done = skipped // self._batch_size
        for batch in super().__iter__():
            self._batches_done += 1
            yield batch

    def with_dataset(self, dataset: Dataset[Any]) -> "SeededLoader":
        """Returns a loader of another data set of the same length, at the same position, without worker processes."""
        sampler = self.sampler
        other = SeededLoader(
            dataset,
            self._batch_size,
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
        """Copies the position of another loader of as many samples: its epoch and how many of its batches are done."""
        self.sampler.set_epoch(other.sampler.epoch)
        self._batches_done, self._resumed_state = other._batches_done, other._resumed_state

    @property
    def samples(self) -> Dataset[Any]:
        """The data set that was passed to the constructor."""
        return self.dataset.dataset  # type: ignore[attr-defined, no-any-return]

    def state_dict(self) -> dict[str, int]:
        """Returns the seed, the epoch, how many of its batches are done, and the batch size."""
        return {
            "seed": self.sampler.seed,
            "epoch": self.sampler.epoch,
            "batches": self._batches_done,
            "batch_size": self._batch_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes the saved epoch at its next batch; any other epoch that is set begins at its first batch."""
        self.sampler.seed = state["seed"]
        self._resumed_state = state


def seeded_rows(
    dataset: Dataset[Any], rows: list[int], seeds: list[int], batch_size: int, **settings: Any
) -> DataLoader[Any]:
    """Returns a loader of some samples of a data set, in order, each seeded by its own seed and its index.

    Args:
        dataset: A map-style data set.
        rows: Indices of the samples.
        seeds: Seed of each of these samples.
        batch_size: Samples per batch.
        **settings: Further settings of torch's `DataLoader`.
    """
    keys = [(row, hash((seed, row)) % 2**32) for row, seed in zip(rows, seeds, strict=True)]
    # with its own generator the loader draws nothing from the global one
    return DataLoader(_SeededDataset(dataset), batch_size, sampler=keys, generator=torch.Generator(), **settings)


class _SeededSampler(DistributedSampler[tuple[int, int]]):
    """Yields the index and the seed of each sample; a `DistributedSampler`, so that Lightning does not replace it."""

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
    """Yields the samples of an epoch's batches, the same number of batches in each process."""

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
        with nullcontext() if get_worker_info() is not None else _preserved_random_state():
            return [self._sample(*key) for key in keys]

    def _sample(self, index: int, seed: int) -> Any:
        _seed(seed)
        return self.dataset[index]


@contextmanager
def _preserved_random_state() -> Iterator[None]:
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
    torch.default_generator.manual_seed(seed)  # samples are read on the CPU
