"""Predicted masks as picture files."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from ...data.transforms.resize import ResizeTo
from ...drawing.palette import class_colors
from ..outputs import has_labels, output_names
from .pictures import PictureWriter


class MaskWriter(PictureWriter):
    """Writes a segmentation's predictions as png files of their images' own size; see `PictureWriter`.

    Probabilities `(b, c, h, w)` are resized bilinearly to the size of the file in the data set's `paths`, upright as
    `read_image` reads it. The most probable class of a pixel is its value, in a png with a palette. Of a task that is
    `multilabel`, each label has a folder of png files of 0 and 255; of a single channel they lie in the folder itself.
    `classes.csv` beside them tells what is what. Of a data set without `paths`, masks keep the predictions' size.

    Args:
        folder: Where to write; by default the folder `predicted_masks` in that of the trainer's logs.
        palette: Red, green and blue in 0..255 of each class. By default black for the first, then colors that stay
            apart with and without red-green blindness.

    Raises:
        ValueError: If predictions are not maps, have more than 256 classes, show a part of a file only, or would
            replace a file of the data.
    """

    name = "masks"
    summary = "masks of {} images"

    def __init__(self, folder: str | Path | None = None, palette: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(folder)
        class_colors(palette, 0)
        self.palette = palette

    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Takes the classes from the task, and writes them before the first masks."""
        count = predictions.shape[1]
        names = output_names(pl_module, count, "class")
        self._labels = has_labels(pl_module, count)
        self._subfolders = _folder_names(names) if count > 1 else ["."]
        if not self._labels and count > 256:
            raise ValueError(f"Expected 256 classes or fewer, which is what a png's palette has, but got {count}")
        self._colors = [] if self._labels else class_colors(self.palette, count)
        if trainer.is_global_zero and not self._written:
            hexes = ["#{:02x}{:02x}{:02x}".format(*color) for color in self._colors]
            table = (
                {"folder": self._subfolders, "class": names}
                if self._labels
                else {"value": range(count), "class": names, "color": hexes}
            )
            _write_csv(self._folder / "classes.csv", table)

    def draw(self, prediction: Tensor, file: Path | None) -> Iterator[tuple[str, Image.Image]]:
        """Draws the mask, or label by label that of each."""
        size = shape = (prediction.shape[1], prediction.shape[2])
        if file is not None:
            size = _image_size(file)
            if not _is_whole(shape, size, getattr(self._dataset, "size", None)):
                raise ValueError(
                    f"Expected a prediction of all of {file}, but it is {size[1]}x{size[0]} pixels and its prediction, "
                    f"of a cut or padded image, {shape[1]}x{shape[0]}: predict with the data module, or its "
                    "`predict_dataloader`"
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
    """Names a folder for each label, with what file systems do not take replaced."""
    safe = [re.sub(r"[^\w.-]+", "_", name).strip(".") for name in names]
    clear = all(safe) and len({name.casefold() for name in safe}) == len(safe)
    return safe if clear else [f"{i}_{name}" for i, name in enumerate(safe)]


def _image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, turned upright; only one that has to be turned is decoded."""
    with Image.open(path) as file:
        turned = file.getexif().get(ExifTags.Base.Orientation, 1) != 1
        width, height = ImageOps.exif_transpose(file).size if turned else file.size
    return height, width


def _is_whole(shape: tuple[int, int], size: tuple[int, int], resize: Any) -> bool:
    """Tells whether a prediction shows all of a file of a size, and the file alone, as far as their sizes tell."""
    method = resize.method if isinstance(resize, ResizeTo) else None
    if method == "squish":
        return True
    if method == "none" and not resize.whole:
        return bool(resize.size == size)
    # sides are rounded by less than a pixel
    return abs(shape[0] * size[1] - shape[1] * size[0]) <= sum(size)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]


def _most_probable(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the class of each pixel `(h, w)`; class by class, as all of them would not fit for a large photograph."""
    best = torch.full(size, -torch.inf, device=probabilities.device)
    classes = torch.zeros(size, dtype=torch.uint8, device=probabilities.device)
    for i, values in enumerate(probabilities):
        resized = _resized(values, size)
        classes.masked_fill_(resized > best, i)
        torch.maximum(best, resized, out=best)
    return classes


def _write_csv(path: Path, columns: Mapping[str, Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
