"""Base class of all data modules of images: splits, data loaders and the check for unreadable files."""

import operator
import os
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypedDict

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ...utils.plain import size_pair
from ..loading.class_batches import ClassBatches
from ..loading.seeded_loader import SeededLoader
from ..samples.samples import Samples
from ..samples.split_folders import Split
from ..transforms.augment import AugTransforms
from ..transforms.resize import ResizeTo
from .dataset import ImageDataset
from .opening import ImageReadError, raise_pixel_limit
from .pixels import check_value_range
from .reading import EXTENSIONS, ReadingArgs, find_images, heif_advice, read_image, verify, warn_left_out

Resize = Literal["none", "crop", "squish", "pad"]


class LoadingArgs(TypedDict, total=False):
    """Arguments of `ImageData` that every data module of images passes on to it."""

    image_size: int | tuple[int, int]
    num_workers: int | None
    resize: Resize
    augmentation: nn.Module | None
    augment: bool
    channels: int
    value_range: tuple[float, float] | None
    max_pixels: int | None
    on_error: Literal["raise", "skip"]


class ImageDataArgs(LoadingArgs, total=False):
    """Arguments of `ImageData` that data modules of single images pass on to it."""

    predict_root: str | Path | None
    batch_size: int
    images_per_class: int | None


class ImageData(L.LightningDataModule):
    """Base class of the data modules of images: builds the data loaders from the samples of each split.

    A subclass finds the samples and passes them to the constructor. `class_names`, `num_classes` and the samples are
    known after construction, before any image is read.

    Args:
        samples: Samples of each split that has any.
        class_names: Names of the classes, or of the outputs of a regression.
        predict_root: Folder of images to predict, searched recursively, or one image file; by default the test images.
        image_size: Height and width of the images in a batch, in pixels.
        batch_size: Samples in a batch: images, or pairs of images.
        images_per_class: Images of each class in a training batch, for metric learning; it must divide `batch_size`,
            and every image must have one class. By default batches are drawn regardless of classes.
        num_workers: Worker processes of each data loader; by default one per processor, at most 8.
        resize: How images are resized to `image_size`: `crop` scales an image to cover that size and crops the rest,
            `squish` changes the aspect ratio, `pad` scales an image to fit into it and pads with black, and `none`
            crops and pads without scaling, which suits large photographs. Crops are at a random position in training,
            else at the center.
        augmentation: Module that augments a training image, float `(c, h, w)` in 0..1, and transforms its mask or
            target image alike if it has one; by default fastai's `AugTransforms`.
        augment: Whether to augment training images.
        channels: Channels to read: 1 for grayscale, 3 for RGB, 4 for RGB with transparency.
        value_range: Stored pixel values that are black and white, the same for every file, such as `(0, 4095)` for 12
            bits in 16-bit files. By default the range of each file's data type: 0 to 255, for 16 bits 0 to 65535, for
            floats 0 to 1; 32-bit and signed integers need a `value_range`.
        max_pixels: Largest number of pixels of an image file, a protection against files made to exhaust memory; by
            default Pillow's limit, 178,956,970. A larger number also raises Pillow's limit for the process.
        on_error: `raise` raises an error at a file that cannot be read. `skip` checks all files of a split first,
            warns, and leaves out samples with a missing or unusable file.
    """

    def __init__(
        self,
        samples: dict[Split, Samples],
        class_names: Sequence[str],
        *,
        predict_root: str | Path | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 64,
        images_per_class: int | None = None,
        num_workers: int | None = None,
        resize: Resize = "crop",
        augmentation: nn.Module | None = None,
        augment: bool = True,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        if on_error not in ("raise", "skip"):
            raise ValueError(f"Expected `on_error` to be raise or skip, but got {on_error!r}")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, but got {batch_size}")
        raise_pixel_limit(max_pixels)
        self.samples = samples
        self.class_names = [*class_names]
        self.predict_root = None if predict_root is None else Path(predict_root)
        self.image_size = size_pair(image_size)
        self.batch_size, self.images_per_class = operator.index(batch_size), images_per_class
        self.num_workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
        self.resize = resize
        self.augmentation = (augmentation or AugTransforms()) if augment else None
        self.channels = channels
        self.reading: ReadingArgs = {
            "channels": channels,
            "value_range": check_value_range(value_range),
            "max_pixels": max_pixels,
        }
        self.on_error = on_error
        self._checked: set[str] = set()
        self._seed = 0
        ResizeTo(self.image_size, resize)
        self._class_batches()

    @property
    def num_classes(self) -> int:
        """Number of classes, or of the outputs of a regression."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Number of channels of the inputs."""
        return self.channels

    def setup(self, stage: str) -> None:
        """Draws the seed of a fit, and drops unreadable samples of the stage's splits if `on_error` is `skip`."""
        if stage == "fit":
            self._seed = int(torch.randint(2**62, ()))
        splits: dict[str, list[Split]] = {"fit": ["train", "valid"], "validate": ["valid"], "test": ["test"]}
        for split in splits.get(stage, []):
            if self.on_error == "skip" and split in self.samples and split not in self._checked:
                kept = self._readable(self.samples[split].paths, split)
                self.samples[split] = self.samples[split][kept]
                self._checked.add(split)

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = self._dataset("train", random=True)
        distributed: dict[str, Any] = {}
        batches = self._class_batches()
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return self._loader(dataset if batches is None else Subset(dataset, [*chain(*batches(self._seed))]))
        if self.trainer is not None and self.trainer.world_size > 1:
            distributed = self.trainer.distributed_sampler_kwargs or {}
            self._seed = self.trainer.strategy.broadcast(self._seed)
        drop_last = self._has_single_last(len(dataset))  # type: ignore[arg-type]
        return SeededLoader(
            dataset,
            self.batch_size,
            batches=batches,
            seed=self._seed,
            drop_last=drop_last,
            **distributed,
            **self._workers(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the seed of the sample order and of augmentation."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the seed of the sample order and of augmentation."""
        self._seed = state_dict["seed"]

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._loader(self._dataset("valid")) if "valid" in self.samples else []

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        size = ResizeTo(self.image_size, self.resize)
        return self._loader(ImageDataset(self._predict_paths(), None, size=size, **self.reading))

    def _predict_paths(self) -> list[Path]:
        if self.predict_root is None:
            paths = self._split("test").paths
        elif self.predict_root.is_file():
            paths = [self.predict_root]
        else:
            paths = find_images(self.predict_root)
            warn_left_out(self.predict_root)
            if not paths:
                raise ValueError(f"Expected images to predict in {self.predict_root}, but there are none")
        if self.on_error == "skip":
            paths = [paths[i] for i in self._readable(paths, "predict")]
        return paths

    def _split(self, split: Split) -> Samples:
        if split not in self.samples:
            raise ValueError(
                f"Expected {split} images, but the data has only {', '.join(self.samples)}; add a folder or `split` "
                f"named {split}, or set `{split}_fraction`, or pass unlabeled images as `predict_root`"
            )
        return self.samples[split]

    def _dataset(self, split: Split, random: bool = False) -> Dataset[Any]:
        samples = self._split(split)
        if not isinstance(samples.targets, Tensor):
            raise TypeError(f"Expected the {split} targets to be numbers, but they are files")
        return ImageDataset(
            samples.paths,
            samples.targets,
            size=ResizeTo(self.image_size, self.resize, random=random),
            augment=self.augmentation if random else None,
            **self.reading,
        )

    def _class_batches(self) -> ClassBatches | None:
        if self.images_per_class is None:
            return None
        targets = self._split("train").targets
        if not isinstance(targets, Tensor) or targets.ndim > 1:
            raise ValueError(
                "Expected one class index per image with `images_per_class`, but got targets of another kind"
            )
        return ClassBatches(targets.tolist(), self.batch_size, self.images_per_class)

    def _loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=self.batch_size, **self._workers())

    def _workers(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def _has_single_last(self, size: int) -> bool:
        """Returns whether the last of several batches of a rank would have one image, which batch norm cannot use."""
        per_rank = -(-size // (self.trainer.world_size if self.trainer else 1))
        return per_rank > self.batch_size > 1 and per_rank % self.batch_size == 1

    def _readable(self, paths: list[Path], split: Split | Literal["predict"]) -> list[int]:
        errors = self._errors(paths, split)
        if errors:
            listed = "\n".join(f"  {error.path}: {error.reason}" for error in errors.values())
            warnings.warn(f"{len(errors)} of {len(paths)} {split} images are left out:\n{listed}", stacklevel=2)
        if len(errors) == len(paths):
            raise ValueError(f"Expected {split} images that can be read, but none of {len(paths)} can")
        return [i for i in range(len(paths)) if i not in errors]

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        """Reads all files of a split, or those to `predict`, and returns the errors by index."""
        size = ResizeTo(self.image_size, self.resize).scaled_size
        return verify(len(paths), lambda i: read_image(paths[i], size=size, **self.reading), self.num_workers)


def no_images_error(root: Path) -> ValueError:
    """Returns the error for a folder without images, which says what it contains instead."""
    found = sorted({path.suffix.lower() or "no extension" for path in root.rglob("*") if path.is_file()})
    common = ", ".join(sorted(EXTENSIONS & {".jpg", ".png", ".tif", ".webp", ".bmp"}))
    contents = f"files with {', '.join(found[:5])}" if found else "no files"
    return ValueError(f"Expected images ({common}, ...) in {root}, but it holds {contents}{heif_advice(found)}")
