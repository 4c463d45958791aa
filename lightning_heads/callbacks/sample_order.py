"""Finds the sample of the data set, and its file, that each row of a batch belongs to."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    Subset,
)


class SampleOrder:
    """Data set indices of the samples that a data loader yields on this rank, batch by batch.

    They are unknown for an iterable-style data set, a data set that forms its own batches (`batch_size=None`) and a
    loader that is not a `DataLoader`. Samples are then numbered in the order in which they arrive, and have no files.

    Attributes:
        dataset: The loader's data set, or None if it has none.
        is_known: Whether the indices are known.
        size: Number of samples on this rank, or None if it is unknown.

    Raises:
        ValueError: If the sampler may yield another order each time that it is iterated, except in `predict`, where
            Lightning records the indices.
    """

    def __init__(self, trainer: L.Trainer, loader: Any, max_batches: int | float) -> None:
        self._arrived, self._rank, self._world_size = 0, trainer.global_rank, trainer.world_size
        is_map_style = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
        # in `predict`, Lightning's batch sampler records what it yields, whatever the order
        self._recorder: Any = loader.batch_sampler if trainer.predicting and is_map_style else None
        self._batches = _index_batches(loader, max_batches) if is_map_style and not trainer.predicting else None
        self.is_known = self._recorder is not None or self._batches is not None
        self.dataset: Any = getattr(loader, "dataset", None)
        self.size = None if self._batches is None else sum(map(len, self._batches))

    def indices(self, batch_idx: int, count: int) -> list[int]:
        """Returns the index of each of the `count` samples of the next batch.

        Raises:
            ValueError: If the sampler has another number of samples in that batch.
        """
        if not self.is_known:
            first, self._arrived = self._arrived, self._arrived + count
            return [self._rank + i * self._world_size for i in range(first, self._arrived)]
        batches = self._recorder.seen_batch_indices if self._batches is None else self._batches
        batch: list[int] = batches[batch_idx]
        if len(batch) != count:
            raise ValueError(
                f"Expected a prediction for each of the {len(batch)} samples of batch {batch_idx}, but got {count}, so "
                "that their files are unknown; a `collate_fn` must not leave out samples"
            )
        return batch

    def files(self, index: int) -> tuple[str | Path, ...]:
        """Returns the file of a sample, both files of a pair, or nothing if its file is unknown."""
        return files_of_sample(self.dataset, index) if self.is_known else ()


def check_batch_samplers(trainer: L.Trainer) -> None:
    """Raises ValueError for a list of batches as `batch_sampler` in `predict`, where Lightning does not support it."""
    # loaders that a data module will return are not known yet
    for loader in CombinedLoader(trainer.predict_loop._data_source.instance).flattened:
        sampler = getattr(loader, "batch_sampler", None)
        if isinstance(sampler, Sequence):
            raise ValueError(
                f"Expected `batch_sampler` to be a sampler, but got {type(sampler).__name__}; pass its indices as "
                "`sampler`, with a `batch_size`"
            )


def sample_orders(trainer: L.Trainer) -> list[SampleOrder]:
    """Returns the order of the samples in each loader of the evaluation or prediction that has just started."""
    # in `trainer.validate` after a fit, `trainer.val_dataloaders` would be those of the fit
    loop = trainer.predict_loop if trainer.predicting else trainer._evaluation_loop
    combined = loop._combined_loader
    assert combined is not None
    # in any other mode, a batch consists of batches of several loaders
    loaders = combined.flattened if combined._mode == "sequential" else [None]
    return [SampleOrder(trainer, loader, limit) for loader, limit in zip(loaders, loop.max_batches, strict=False)]


def files_of_sample(dataset: Any, index: int) -> tuple[str | Path, ...]:
    """Returns the file of a sample, both files of a pair, or nothing if its data set has no `paths`."""
    dataset, index = source_of(dataset, index)
    paths = getattr(dataset, "paths", None)
    found = () if paths is None else paths[index]
    return found if isinstance(found, tuple) else (found,)


def source_of(dataset: Any, index: int) -> tuple[Any, int]:
    """Returns the data set that a sample of `Subset`s and `ConcatDataset`s comes from, and its index there."""
    while isinstance(dataset, (Subset, ConcatDataset)):
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, dataset.indices[index]
        else:
            part = bisect_right(dataset.cumulative_sizes, index)
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
    return dataset, index


def sources(dataset: Any) -> list[Any]:
    """Returns the data sets that `Subset`s and `ConcatDataset`s consist of."""
    if isinstance(dataset, Subset):
        return sources(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return [source for part in dataset.datasets for source in sources(part)]
    return [dataset]


def _index_batches(loader: DataLoader[Any], max_batches: int | float) -> list[list[int]] | None:
    """Returns the data set indices of each batch, or None if the data set forms its own batches."""
    batches = loader.batch_sampler
    order: Any = loader.sampler if batches is None else batches
    if type(order) is BatchSampler:
        order = order.sampler
    if not _is_repeatable(order, loader.dataset):
        raise ValueError(
            "Expected a data loader that does not shuffle, as sample indices are derived from its order, but its "
            f"sampler is {type(order).__name__}; for any other order, pass a list of indices as `sampler`"
        )
    if batches is None:
        return None
    return [[*batch] for batch in islice(batches, None if max_batches == float("inf") else int(max_batches))]


def _is_repeatable(order: Any, dataset: Any) -> bool:
    """Returns whether a sampler yields the same indices each time that it is iterated."""
    if isinstance(order, DistributedSampler):
        # Lightning wraps a custom sampler in a `DistributedSampler` whose `dataset` holds that sampler
        return not order.shuffle and (
            order.dataset is dataset or _is_repeatable(getattr(order.dataset, "_sampler", None), dataset)
        )
    return isinstance(order, (SequentialSampler, Sequence, np.ndarray))
