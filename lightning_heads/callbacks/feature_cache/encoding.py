"""Encodes the images of data sets with the frozen encoder of a task."""

import copy
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ...data.features.dataset import CacheableDataset, FeatureDataset
from ...data.features.fingerprint import fingerprint
from ...data.features.storage import FeatureFile, FeatureRows, load_features
from ...encoders.encoder import check_images
from ...heads.pooled import split_pooling
from ...utils.files import locked
from ...utils.modules import eval_mode, uncompiled
from ...utils.tensors import at_least_float32
from .distributed import broadcast_from_rank_zero, propagate_errors, rank_zero_first
from .frozen_encoder import encoding_parts
from .image_source import ImageSource, image_source

_MAX_IN_MEMORY = 2**30  # bytes; larger features are stored in a file


@dataclass
class FeatureEncoder:
    """Encodes the images of data sets with a task's encoder, which is left unchanged.

    Attributes:
        trainer: The trainer, during `fit`.
        task: The task that is fitted, with a `model.features`.
        dtype: Data type in which features are stored; by default that of the model's features, or float32 if higher.
        folder: Folder in which features are saved for other runs, or None.
        progress: Whether to show progress bars.
    """

    trainer: L.Trainer
    task: Any
    dtype: torch.dtype | None
    folder: Path | None
    progress: bool

    def encode(self, loader: DataLoader[Any], views: int, name: str) -> FeatureDataset:
        """Encodes the images of a loader's data set, split across ranks, or loads their features from the folder.

        Without a folder, features are kept in memory if they take at most 1 GiB and there is one process, else in a
        temporary file.

        Args:
            loader: The loader.
            views: Number of times that each image is augmented and encoded.
            name: Name of the split, shown by the progress bar and part of the file name.

        Raises:
            ValueError: If the samples of a task for pairs are not `PairedImages`, or there is a folder and the data
                set has no `image_key`.
            TypeError: If a sample does not begin with an image.
            OSError: If the disk lacks space for the features.
        """
        trainer = self.trainer
        images = image_source(self.task, loader, is_kept=self.folder is not None)
        encoding = _Encoding(self, images, views, name)
        owner = None
        if self.folder is not None:
            key = broadcast_from_rank_zero(trainer, lambda: fingerprint(self.key, images.key(), views, self.dtype))
            features = _encode_to_file(encoding, self.folder / f"{name}-{key}.safetensors")
        elif trainer.world_size == 1 and _num_bytes(encoding.layout) <= _MAX_IN_MEMORY:
            rows = FeatureRows(*encoding.layout)
            encoding.fill(rows)
            features = rows.features
        else:
            owner = tempfile.TemporaryDirectory(prefix="features-") if trainer.is_global_zero else None
            path = Path(broadcast_from_rank_zero(trainer, lambda: owner.name if owner else ""), "features.safetensors")
            features = _encode_to_file(encoding, path)
        if isinstance(images.dataset, CacheableDataset):
            return FeatureDataset(features, images.dataset.extras, owner)
        rest = encoding.rest
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(gathered, rest)
            rest = {row: others for rank_rest in gathered for row, others in rank_rest.items()}
        return FeatureDataset(features, rest.__getitem__, owner)

    def features(self, images: Tensor) -> Tensor:
        """Computes the features of a batch of images `(b, c, h, w)`, returned on the CPU in at least float32."""
        plugin = self.trainer.precision_plugin
        with eval_mode(self.task.model), torch.no_grad(), plugin.forward_context():
            return at_least_float32(self.task.model.features(plugin.convert_input(images.to(self.task.device)))).cpu()

    @cached_property
    def key(self) -> str:
        """Fingerprint of what features depend on besides the images: encoder, pooling, precision and type of device."""
        model = uncompiled(self.task.model)
        precision = self.trainer.precision_plugin.precision, torch.get_float32_matmul_precision()
        return fingerprint(
            type(model), encoding_parts(model), split_pooling(model.head)[0], precision, self.task.device.type
        )


@dataclass
class _Encoding:
    """One pass of the encoder over the images of a data set, each augmented into `views` views.

    Attributes:
        rest: What follows each image in its sample, by index, if the data set is no `CacheableDataset`.
    """

    encoder: FeatureEncoder
    images: ImageSource
    views: int
    name: str
    rest: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    @cached_property
    def layout(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape `(views, n, ...)` and data type of all features, found by encoding the first image."""
        first, _ = next(self.images.batches(torch.zeros(1, dtype=torch.long)))
        example = self.encoder.features(first)[0]
        return (self.views, len(self.images), *example.shape), self.encoder.dtype or example.dtype

    def fill(self, rows: FeatureRows) -> None:
        """Encodes and writes the missing rows of this rank."""
        trainer = self.encoder.trainer
        rank_rows = torch.arange(trainer.global_rank, len(self.images), trainer.world_size)
        # transposed, so that all views of an image are consecutive and its file is read once
        positions, views = (~rows.written[:, rank_rows].T).nonzero(as_tuple=True)
        missing = rank_rows[positions]
        bar = tqdm(
            desc=f"encoding {self.name} images",
            total=len(missing),
            unit="image",
            disable=not (self.encoder.progress and trainer.is_global_zero),
        )
        with bar, _flush_on_exit(rows):
            done = 0
            for batch, rest in self.images.batches(missing, views):
                if not done:
                    check_images(self.encoder.task.model, batch)
                part = slice(done, done + len(batch))
                rows.write(views[part], missing[part], self.encoder.features(batch))
                if not isinstance(self.images.dataset, CacheableDataset):
                    # copied, as each tensor from a worker keeps a shared memory file open
                    self.rest.update(zip(missing[part].tolist(), copy.deepcopy(rest), strict=True))
                done += len(batch)
                bar.update(len(batch))


def _encode_to_file(encoding: _Encoding, path: Path) -> Tensor:
    """Returns the features of a file; if it does not exist, all ranks encode the images and write it first."""
    trainer = encoding.encoder.trainer
    if not broadcast_from_rank_zero(trainer, path.exists):
        with locked(path, lambda acquire: broadcast_from_rank_zero(trainer, acquire)):
            # another run may have written it while this one waited for the lock
            if not broadcast_from_rank_zero(trainer, path.exists):
                rows = rank_zero_first(trainer, lambda: FeatureFile(path, *encoding.layout))
                propagate_errors(trainer, lambda: encoding.fill(rows))
                broadcast_from_rank_zero(trainer, rows.finish)
    return load_features(path)


def _num_bytes(layout: tuple[tuple[int, ...], torch.dtype]) -> int:
    """Returns the size of features in bytes."""
    shape, dtype = layout
    return math.prod(shape) * dtype.itemsize


@contextmanager
def _flush_on_exit(rows: FeatureRows) -> Iterator[None]:
    """Flushes the rows on exit, also on an exception or interrupt."""
    try:
        yield
    finally:
        rows.flush()
