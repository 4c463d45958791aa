"""Base class of data modules of pairs of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ...utils.arguments import Unpack, forwards
from ..embedding_index import EmbeddingIndex
from ..images.datamodule import ImageData, LoadingArgs
from ..images.dataset import ImageDataset
from ..samples.folders import nfc
from ..samples.samples import Samples, hold_out
from ..samples.split_folders import Split
from ..transforms.resize import ResizeTo
from .dataset import DrawnPairs, PairedImages, nearest_of_others
from .listed import check_listed, indices_of, read_pair_list, take_listed


class PairLoadingArgs(LoadingArgs, total=False):
    """Arguments of `ImageData` that `PairData` passes on to it."""

    batch_size: int


class PairingArgs(PairLoadingArgs, total=False):
    """Arguments of `PairData` that all its subclasses pass on to it."""

    same_fraction: float
    pairs: str | Path | None
    hard_negative_fraction: float
    neighbors: str | Path | None
    num_neighbors: int
    seed: int
    predict_pairs: str | Path | None


class PairDataArgs(PairingArgs, total=False):
    """Arguments of `PairData` that `PairFolderData` passes on to it."""

    valid_fraction: float
    test_fraction: float


@forwards(PairLoadingArgs, to=ImageData)
class PairData(ImageData):
    """Base class of the data modules of image pairs: builds the data loaders from images and their classes.

    A subclass finds the images and their classes and passes them to the constructor. A batch consists of the first and
    the second images, each float `(b, c, h, w)` in 0..1, and whether both are of one class, bool `(b,)`. In training,
    if the trainer's task has a loss of all pairs of a batch (`trains_on_all_pairs`), the class indices `(b, 2)` of
    drawn pairs follow. A training epoch has one pair per training image, whose partner is drawn anew in every epoch, as
    in the Siamese chapter of fastai's book; the two images are augmented independently. Validation and test have one
    pair per image as well, which are drawn once. Both images of a pair are of the same split.

    Args:
        samples: Images of each split that has any, and their class indices.
        image_classes: Names of the classes of images. `class_names` are those of pairs, `different` and `same`.
        root: Folder that the paths in csv files of pairs, and the names in `neighbors`, are relative to.
        same_fraction: Probability that a drawn partner is another image of the same class; otherwise another class is
            drawn, then an image of it. The partner of an image that is alone in its class is always of another class.
        pairs: Csv file of pairs to use in place of drawn ones, with the columns `first` and `second`, paths relative to
            `root`, `same`, 0 or 1, false or true, no or yes, and optionally `split`, which is `valid` by default. If
            validation or test has no images of its own, it takes those of its listed pairs from the training images.
        hard_negative_fraction: Fraction of the training pairs of different classes whose partner is a hard negative: it
            is drawn from the images of other classes that are nearest in `neighbors`.
        neighbors: File of an `EmbeddingIndex` of all training images, by which hard negatives are found.
        num_neighbors: Number of nearest images of other classes that a hard negative is drawn from.
        valid_fraction: Fraction of the training images to hold out for validation, unless there are validation images.
        test_fraction: Fraction of the training images to hold out for testing, unless there are test images.
        seed: Seed of the random split, and of the pairs of validation and test.
        predict_pairs: Csv file of pairs of any images to predict, with the columns `first` and `second`, paths relative
            to `root`. By default the test pairs are predicted.

    Raises:
        FileNotFoundError: If a csv file, or an image that it lists, is missing.
        ValueError: If no pairs can be drawn from the images of a split, for example as all are of one class, or a csv
            file lists images that are not of the split of their pair.
    """

    def __init__(
        self,
        samples: dict[Split, Samples],
        image_classes: Sequence[str],
        root: Path,
        *,
        same_fraction: float = 0.5,
        pairs: str | Path | None = None,
        hard_negative_fraction: float = 0.0,
        neighbors: str | Path | None = None,
        num_neighbors: int = 10,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        predict_pairs: str | Path | None = None,
        **loading: Unpack[PairLoadingArgs],
    ) -> None:
        listed = {} if pairs is None else read_pair_list(Path(pairs), root, "pairs")
        if not 0 <= hard_negative_fraction <= 1:
            raise ValueError(f"Expected `hard_negative_fraction` to be from 0 to 1, but got {hard_negative_fraction}")
        if hard_negative_fraction and (neighbors is None or "train" in listed):
            raise ValueError(
                f"Expected `neighbors`, and no training pairs in `pairs`, for `hard_negative_fraction` of "
                f"{hard_negative_fraction}"
            )
        if num_neighbors < 1:
            raise ValueError(f"Expected `num_neighbors` to be at least 1, but got {num_neighbors}")
        samples = take_listed(samples, listed)
        samples = hold_out(samples, valid_fraction, test_fraction, seed, samples["train"].tolist())
        check_listed(samples, listed)
        super().__init__(
            samples,
            ["different", "same"],
            predict_root=None,
            images_per_class=None,
            **loading,
        )
        self.image_classes, self.root, self.listed = [*image_classes], root, listed
        self.same_fraction, self.hard_negative_fraction, self.seed = same_fraction, hard_negative_fraction, seed
        self.neighbors, self.num_neighbors = None if neighbors is None else Path(neighbors), num_neighbors
        self._pairs_to_predict = None
        if predict_pairs is not None:
            found = read_pair_list(Path(predict_pairs), root, "predict_pairs", labeled=False)
            self._pairs_to_predict = [pair for part in found.values() for pair in part]
        self._nearest: Tensor | None = None
        for split in samples:
            if split not in listed:
                self._draw_pairs(split)

    def setup(self, stage: str) -> None:
        """Prepares a stage as `ImageData` does.

        Raises:
            TypeError: If the trainer's task takes another number of images than two.
        """
        task = getattr(self.trainer, "lightning_module", None)
        num_inputs = getattr(task, "num_inputs", 2)
        if num_inputs != 2:
            raise TypeError(
                f"Expected a task for pairs of images, such as `PairClassifier`, but {type(task).__name__} takes "
                f"{num_inputs} at a time"
            )
        super().setup(stage)

    def predict_dataloader(self) -> DataLoader[Any]:
        if self._pairs_to_predict is None:
            if "test" not in self.samples:
                raise ValueError(
                    f"Expected test images or `predict_pairs`, but the data has only {', '.join(self.samples)}"
                )
            self.setup("test")
            return self.test_dataloader()
        paths = [*dict.fromkeys(path for pair in self._pairs_to_predict for path in pair.paths)]
        if self.on_error == "skip":
            paths = [paths[i] for i in self._readable(paths, "predict")]
        return self._loader(PairedImages(self._images(paths), indices_of(self._pairs_to_predict, paths)))

    def _dataset(self, split: Split, random: bool = False) -> PairedImages:
        paths = self._split(split).paths
        images = self._images(paths, random)
        if split in self.listed:
            return PairedImages(images, indices_of(self.listed[split], paths))
        if split != "train":
            return PairedImages(images, self._draw_pairs(split).fixed(self.seed))
        nearest = None
        if self.neighbors is not None and self.hard_negative_fraction:
            nearest = self._nearest_of_others(self.neighbors)
        task = getattr(self.trainer, "lightning_module", None)
        return PairedImages(
            images, self._draw_pairs(split, nearest), with_classes=getattr(task, "trains_on_all_pairs", False)
        )

    def _images(self, paths: list[Path], random: bool = False) -> ImageDataset:
        return ImageDataset(
            paths,
            None,
            size=ResizeTo(self.image_size, self.resize, random=random),
            augment=self.augmentation if random else None,
            **self.reading,
        )

    def _draw_pairs(self, split: Split, nearest: Tensor | None = None) -> DrawnPairs:
        hard_negative_fraction = 0.0 if nearest is None else self.hard_negative_fraction
        try:
            return DrawnPairs(
                self._labels(split), self.same_fraction, nearest=nearest, hard_negative_fraction=hard_negative_fraction
            )
        except ValueError as error:
            raise ValueError(f"Pairs of the {split} images cannot be drawn: {error}") from error

    def _labels(self, split: Split) -> Tensor:
        return torch.tensor(self._split(split).tolist())

    def _nearest_of_others(self, neighbors: Path) -> Tensor:
        """Returns the indices `(n, k)` of the training images of other classes nearest to each, computed once."""
        paths = self._split("train").paths
        if self._nearest is None or len(self._nearest) != len(paths):
            index = EmbeddingIndex.load(neighbors)
            rows = {nfc(name): i for i, name in enumerate(index.names)}
            rows |= {os.path.abspath(path): i for i, path in enumerate(index.paths)}
            names = [nfc(Path(os.path.relpath(path, self.root)).as_posix()) for path in paths]
            # files are matched by name too, in case the data set was moved after it was indexed
            found = [rows.get(os.path.abspath(path), rows.get(name)) for path, name in zip(paths, names, strict=True)]
            if None in found:
                raise ValueError(
                    f"Expected every training image in {neighbors}, but {found.count(None)} of {len(paths)} are "
                    f"not there, the first {paths[found.index(None)]}"
                )
            embeddings = index.embeddings[torch.tensor(found)]
            self._nearest = nearest_of_others(embeddings, self._labels("train"), self.num_neighbors)
        return self._nearest
