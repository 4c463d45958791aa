"""The features of a data set's images, by the encoder of a task that is being fitted."""

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
from ...heads.pooled import split_pooling
from ...utils.files import locked
from ...utils.modules import eval_mode
from ...utils.tensors import at_least_float32
from .distributed import all_or_none, first_before_others, from_first
from .frozen_encoder import encoding_parts
from .image_source import ImageSource, image_source

_IN_MEMORY = 2**30  # bytes that are not worth a file


@dataclass
class FeatureEncoder:
    """Encodes the images of data sets by a task's encoder, which stays as it is meanwhile.

    Attributes:
        trainer: A trainer that fits.
        task: Its task, with a `model.features`.
        dtype: What to keep features in; by default as they come, in float32 at least.
        folder: Where to keep them for other runs, or None.
        progress: Whether to show progress bars.
    """

    trainer: L.Trainer
    task: Any
    dtype: torch.dtype | None
    folder: Path | None
    progress: bool

    def encode(self, loader: DataLoader[Any], views: int, name: str) -> FeatureDataset:
        """Encodes the images of a loader's data set, each process its share, or finds their features in the folder.

        Without a folder, features are in memory while they are small and there is one process, else in a temporary
        file.

        Args:
            loader: The loader.
            views: How many times to augment and encode each image.
            name: What the images are for, in the progress bar and the file's name.

        Raises:
            ValueError: If the samples of a task for pairs are not `PairedImages`, or cannot be told from others.
            TypeError: If a sample does not begin with an image.
            OSError: If there is no room for the features.
        """
        trainer = self.trainer
        images = image_source(self.task, loader, is_kept=self.folder is not None)
        encoding = _Encoding(self, images, views, name)
        owner = None
        if self.folder is not None:
            key = from_first(trainer, lambda: fingerprint(self.key, images.key(), views, self.dtype))
            features = _in_file(encoding, self.folder / f"{name}-{key}.safetensors")
        elif trainer.world_size == 1 and _size(encoding.layout) <= _IN_MEMORY:
            rows = FeatureRows(*encoding.layout)
            encoding.fill(rows)
            features = rows.features
        else:
            owner = tempfile.TemporaryDirectory(prefix="features-") if trainer.is_global_zero else None
            path = Path(from_first(trainer, lambda: owner.name if owner else ""), "features.safetensors")
            features = _in_file(encoding, path)
        if isinstance(images.dataset, CacheableDataset):
            return FeatureDataset(features, images.dataset.extras, owner)
        rest = encoding.rest
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(shares, rest)
            rest = {row: others for share in shares for row, others in share.items()}
        return FeatureDataset(features, rest.__getitem__, owner)

    def features(self, images: Tensor) -> Tensor:
        """Returns the features of a batch, on the CPU."""
        plugin = self.trainer.precision_plugin
        with eval_mode(self.task.model), torch.no_grad(), plugin.forward_context():
            return at_least_float32(self.task.model.features(plugin.convert_input(images.to(self.task.device)))).cpu()

    @cached_property
    def key(self) -> str:
        """A text that changes with what features are made by: the encoder, and the pooling of the head."""
        model = self.task.model
        precision = self.trainer.precision_plugin.precision, torch.get_float32_matmul_precision()
        return fingerprint(
            type(model), encoding_parts(model), split_pooling(model.head)[0], precision, self.task.device.type
        )


@dataclass
class _Encoding:
    """A pass over the images of a set, for features in `views`.

    Attributes:
        rest: What follows each image, by its index, where the data set does not know it without reading the image.
    """

    encoder: FeatureEncoder
    images: ImageSource
    views: int
    name: str
    rest: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    @cached_property
    def layout(self) -> tuple[tuple[int, ...], torch.dtype]:
        """The shape of all features and their type, as one image shows them."""
        one, _ = next(self.images.batches(torch.zeros(1, dtype=torch.long)))
        like = self.encoder.features(one)[0]
        return (self.views, len(self.images), *like.shape), self.encoder.dtype or like.dtype

    def fill(self, rows: FeatureRows) -> None:
        """Writes this process's share of the rows that are missing."""
        trainer = self.encoder.trainer
        share = torch.arange(trainer.global_rank, len(self.images), trainer.world_size)
        # all views of an image come together, so that its file is read once
        places, views = (~rows.written[:, share].T).nonzero(as_tuple=True)
        todo = share[places]
        bar = tqdm(
            desc=f"encoding {self.name} images",
            total=len(todo),
            unit="image",
            disable=not (self.encoder.progress and trainer.is_global_zero),
        )
        with bar, _flushing(rows):
            done = 0
            for batch, rest in self.images.batches(todo, views):
                part = slice(done, done + len(batch))
                rows.write(views[part], todo[part], self.encoder.features(batch))
                if not isinstance(self.images.dataset, CacheableDataset):
                    # copies, as what comes from a worker holds a file each
                    self.rest.update(zip(todo[part].tolist(), copy.deepcopy(rest), strict=True))
                done += len(batch)
                bar.update(len(batch))


def _in_file(encoding: _Encoding, path: Path) -> Tensor:
    """Returns the features in a file, which all processes fill first where it is not whole."""
    trainer = encoding.encoder.trainer
    if not from_first(trainer, path.exists):
        with locked(path, lambda acquire: from_first(trainer, acquire)):
            if not from_first(trainer, path.exists):  # another run may have made it meanwhile
                rows = first_before_others(trainer, lambda: FeatureFile(path, *encoding.layout))
                all_or_none(trainer, lambda: encoding.fill(rows))
                from_first(trainer, rows.finish)
    return load_features(path)


def _size(layout: tuple[tuple[int, ...], torch.dtype]) -> int:
    """Returns the bytes that features take."""
    shape, dtype = layout
    return math.prod(shape) * dtype.itemsize


@contextmanager
def _flushing(rows: FeatureRows) -> Iterator[None]:
    """Keeps what was written, also where a failure or the user breaks off."""
    try:
        yield
    finally:
        rows.flush()
