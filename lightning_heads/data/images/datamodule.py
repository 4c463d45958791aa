"""What the data modules of single images share."""

import os
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..loading.class_batches import ClassBatches
from ..loading.seeded_loader import SeededLoader
from ..samples.samples import Samples
from ..samples.split_folders import Split
from ..transforms.augment import AugTransforms
from ..transforms.resize import ResizeTo
from .dataset import ImageDataset
from .reading import EXTENSIONS, ImageReadError, find_images, read_image, verify

Resize = Literal["none", "crop", "squish", "pad"]


class ImageData(L.LightningDataModule):
    """Loaders over the samples of each split. A subclass finds the samples and passes them on.

    `class_names`, `num_classes` and the samples are known once it is constructed, before any image is read.

    Args:
        samples: Samples of each split that there is.
        class_names: Names of the classes, or of the outputs of a regression.
        predict_root: A folder of images, searched recursively, or one image, to predict; the test images by default.
        image_size: Height and width of the images in a batch, in pixels.
        batch_size: Images a batch.
        images_per_class: Of how many images of each of its classes a training batch is made, for metric learning; see
            `ClassBatches`. By default the batches take no account of classes.
        num_workers: Worker processes of each loader; by default one a processor, at most eight.
        resize: How images are brought to `image_size`; see `ResizeTo`.
        augmentation: Changes a training image, float `(c, h, w)` in 0..1; fastai's `AugTransforms` by default.
        augment: Whether to augment at all.
        channels: 1 to read images as grayscale, 3 as RGB, 4 with transparency.
        on_error: Whether an image that cannot be read stops the run, or every image is checked first and those that
            cannot be read are reported and left out.
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
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        if on_error not in ("raise", "skip"):
            raise ValueError(f"Expected `on_error` to be raise or skip, but got {on_error!r}")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, but got {batch_size}")
        self.samples = samples
        self.class_names = [*class_names]
        self.predict_root = None if predict_root is None else Path(predict_root)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.batch_size, self.images_per_class = batch_size, images_per_class
        self.num_workers = min(os.cpu_count() or 1, 8) if num_workers is None else num_workers
        self.resize = resize
        self.augmentation = (augmentation or AugTransforms()) if augment else None
        self.channels = channels
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
        """Channels of a model's inputs."""
        return self.channels

    def setup(self, stage: str) -> None:
        """Checks the images of the stage's splits where unreadable ones are to be skipped."""
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
        share: dict[str, Any] = {}
        batches = self._class_batches()
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return self._loader(dataset if batches is None else Subset(dataset, [*chain(*batches(self._seed))]))
        if self.trainer is not None and self.trainer.world_size > 1:
            share = self.trainer.distributed_sampler_kwargs or {}
            self._seed = self.trainer.strategy.broadcast(self._seed)
        drop_last = self._leaves_one(len(dataset))  # type: ignore[arg-type]
        return SeededLoader(
            dataset, self.batch_size, batches=batches, seed=self._seed, drop_last=drop_last, **share, **self._workers()
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the seed of order and augmentation."""
        return {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the seed of order and augmentation from a checkpoint."""
        self._seed = state_dict["seed"]

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._loader(self._dataset("valid")) if "valid" in self.samples else []

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        size = ResizeTo(self.image_size, self.resize)
        return self._loader(ImageDataset(self._predict_paths(), None, channels=self.channels, size=size))

    def _predict_paths(self) -> list[Path]:
        if self.predict_root is None:
            paths = self._split("test").paths
        elif self.predict_root.is_file():
            paths = [self.predict_root]
        else:
            paths = find_images(self.predict_root)
            if not paths:
                raise ValueError(f"Expected images to predict in {self.predict_root}, but there are none")
        if self.on_error == "skip":
            paths = [paths[i] for i in self._readable(paths, "predict")]
        return paths

    def _split(self, split: Split) -> Samples:
        if split not in self.samples:
            raise ValueError(
                f"Expected {split} images, but the data has only {', '.join(self.samples)}; a folder or `split` named "
                f"so, or `{split}_fraction`, sets them apart, and `predict_root` is for unlabeled ones"
            )
        return self.samples[split]

    def _dataset(self, split: Split, random: bool = False) -> Dataset[Any]:
        samples = self._split(split)
        if not isinstance(samples.targets, Tensor):
            raise TypeError(f"Expected the {split} targets to be numbers, but they are files")
        return ImageDataset(
            samples.paths,
            samples.targets,
            channels=self.channels,
            size=ResizeTo(self.image_size, self.resize, random=random),
            augment=self.augmentation if random else None,
        )

    def _class_batches(self) -> ClassBatches | None:
        if self.images_per_class is None:
            return None
        targets = self._split("train").targets
        if not isinstance(targets, Tensor) or targets.ndim > 1:
            raise ValueError("Expected `images_per_class` for images of one class each, but they have other targets")
        return ClassBatches(targets.tolist(), self.batch_size, self.images_per_class)

    def _loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=self.batch_size, **self._workers())

    def _workers(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def _leaves_one(self, size: int) -> bool:
        """Tells whether the last of several batches in a process would have one image, which breaks batch norm."""
        share = -(-size // (self.trainer.world_size if self.trainer else 1))
        return share > self.batch_size > 1 and share % self.batch_size == 1

    def _readable(self, paths: list[Path], split: Split | Literal["predict"]) -> list[int]:
        errors = self._errors(paths, split)
        if errors:
            listed = "\n".join(f"  {error.path}: {error.reason}" for error in errors.values())
            warnings.warn(f"{len(errors)} of {len(paths)} {split} images are left out:\n{listed}", stacklevel=2)
        if len(errors) == len(paths):
            raise ValueError(f"Expected {split} images that can be read, but none of {len(paths)} can")
        return [i for i in range(len(paths)) if i not in errors]

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        """Reads all files of a split, or those to `predict`, and returns what is wrong by index."""
        return verify(len(paths), lambda index: read_image(paths[index]), self.num_workers)


def no_images_error(root: Path) -> ValueError:
    """Returns the error for a folder without images, which says what it holds instead."""
    if find_images(root):
        return ValueError(
            f"Expected a folder for each class in {root}, but its images lie in {root} itself; unlabeled ones go to "
            "`predict_root`, ones that a table lists to `ImageTableData`"
        )
    found = sorted({path.suffix.lower() or "no extension" for path in root.rglob("*") if path.is_file()})
    common = ", ".join(sorted(EXTENSIONS & {".jpg", ".png", ".tif", ".webp", ".bmp"}))
    held = f"files with {', '.join(found[:5])}" if found else "no files"
    return ValueError(f"Expected images ({common}, ...) in {root}, but it holds {held}")
