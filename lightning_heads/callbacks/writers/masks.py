"""Writes predicted segmentation masks to png files."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...data.images.opening import upright_size
from ...data.transforms.resize import ResizeTo
from ...drawing.palette import class_colors
from ...utils.files import open_csv
from ..outputs import has_labels, output_names
from .pictures import PictureWriter


class MaskWriter(PictureWriter):
    """Writes predicted masks as png files of the size of their image files; see `PictureWriter`.

    Probabilities `(b, c, h, w)` are resized bilinearly to the size of the file in the data set's `paths`, with its EXIF
    orientation applied as in `read_image`. Each pixel's value is its most probable class, in a png file with a palette.
    For a `multilabel` task, each label has a folder of png files with values 0 and 255; for a single channel these are
    in `folder` itself. `classes.csv` in `folder` lists the class of each value or folder. Without `paths`, masks have
    the size of the predictions.

    Args:
        folder: Output folder; by default `predicted_masks` in the folder of the trainer's logs.
        palette: Red, green and blue in 0..255 of each class. By default black for the first, then colors that are
            distinguishable with and without red-green color blindness.

    Raises:
        ValueError: If predictions are not maps, have more than 256 classes, cover only a part of an image file, or
            would overwrite a file of the data.
    """

    name = "masks"
    summary = "masks of {} images"

    def __init__(self, folder: str | Path | None = None, palette: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(folder)
        class_colors(palette, 0)
        self.palette = palette

    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Reads the class names of the task, and writes `classes.csv` before the first masks."""
        count = predictions.shape[1]
        names = output_names(pl_module, count, "class")
        self._labels = has_labels(pl_module, count)
        self._subfolders = _folder_names(names) if count > 1 else ["."]
        if not self._labels and count > 256:
            raise ValueError(f"Expected 256 classes or fewer, the size of a png file's palette, but got {count}")
        self._colors = [] if self._labels else class_colors(self.palette, count)
        if trainer.is_global_zero and not self._written:
            hexes = ["#{:02x}{:02x}{:02x}".format(*color) for color in self._colors]
            table = (
                {"folder": self._subfolders, "class": names}
                if self._labels
                else {"value": range(count), "class": names, "color": hexes}
            )
            _write_csv(self._folder / "classes.csv", table)

    def draw(self, prediction: Tensor, file: Path | None, dataset: Any) -> Iterator[tuple[str, Image.Image]]:
        """Draws the mask of all classes, or one mask per label."""
        size = shape = (prediction.shape[1], prediction.shape[2])
        if file is not None:
            size = upright_size(file)
            if not _covers_image(shape, size, getattr(dataset, "size", None)):
                raise ValueError(
                    f"Expected a prediction of all of {file}, but the file is {size[1]}x{size[0]} pixels and the "
                    f"prediction, of a cropped or padded image, {shape[1]}x{shape[0]}: predict with the data module, "
                    "or its `predict_dataloader`"
                )
        if self._labels:
            for label, subfolder in zip(prediction, self._subfolders, strict=True):
                mask = (_resized(label, size) > 0.5).byte() * 255
                yield subfolder, Image.fromarray(mask.cpu().numpy())
        else:
            picture = Image.fromarray(_most_probable(prediction, size).cpu().numpy())
            picture.putpalette([value for color in self._colors for value in color])
            yield ".", picture


def _folder_names(names: Sequence[str]) -> list[str]:
    """Returns a unique folder name for each label, with characters that are unsafe in file names replaced."""
    safe = [re.sub(r"[^\w.-]+", "_", name).strip(".") for name in names]
    unique = all(safe) and len({name.casefold() for name in safe}) == len(safe)
    return safe if unique else [f"{i}_{name}" for i, name in enumerate(safe)]


def _covers_image(shape: tuple[int, int], size: tuple[int, int], resize: Any) -> bool:
    """Returns whether a prediction covers an image file exactly, without crop or padding, judged by their sizes."""
    method = resize.method if isinstance(resize, ResizeTo) else None
    if method == "squish":
        return True
    if method == "none" and not resize.whole:
        return bool(resize.size == size)
    # equal aspect ratios, up to a rounding of less than a pixel
    return abs(shape[0] * size[1] - shape[1] * size[0]) <= sum(size)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]


def _most_probable(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the class of each pixel `(h, w)`; resizes one class at a time to save memory for large images."""
    best = torch.full(size, -torch.inf, device=probabilities.device)
    classes = torch.zeros(size, dtype=torch.uint8, device=probabilities.device)
    for i, values in enumerate(probabilities):
        resized = _resized(values, size)
        classes.masked_fill_(resized > best, i)
        torch.maximum(best, resized, out=best)
    return classes


def _write_csv(path: Path, columns: Mapping[str, Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_csv(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
