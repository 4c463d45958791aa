"""Predicted masks as picture files."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from .pictures import class_colours, save_picture


class MaskWriter(BasePredictionWriter):
    """Writes a segmentation's predictions as png files of their images' own size, batch by batch.

    Probabilities `(b, c, h, w)` are resized bilinearly to the size of the file in the data set's `paths`, upright as
    `read_image` reads it. The most probable class of a pixel is its value, in a png with a palette. Of a task that is
    `multilabel`, each label has a folder of png files of 0 and 255; of a single channel they lie in the folder itself.
    `classes.csv` beside them tells what is what.

    Where `photos` is the folder that all files share, `photos/a/1.jpg` is written to `a/1.png`, or to `a/1.jpg.png` if
    there is `photos/a/1.png` as well. A data set without `paths` names its files by their index and keeps the
    predictions' size. A mask appears whole or not at all. Unless it is told `return_predictions=False`,
    `trainer.predict` keeps every prediction in memory.

    Args:
        folder: Where to write; by default the folder `masks` in that of the trainer's logs.
        palette: Red, green and blue in 0..255 of each class. By default black for the first, then colours that stay
            apart with and without red-green blindness.

    Raises:
        ValueError: If predictions are not maps, have more than 256 classes, or would replace an image.
    """

    def __init__(self, folder: str | Path | None = None, palette: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__("batch")
        self.folder = None if folder is None else Path(folder)
        class_colours(palette, 0)
        self.palette = palette

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.predict_loop._combined_loader is not None
        datasets = [getattr(loader, "dataset", None) for loader in trainer.predict_loop._combined_loader.flattened]
        self._folder = (self.folder or Path(trainer.log_dir or trainer.default_root_dir, "masks")).absolute()
        self._paths = [[Path(path).absolute() for path in getattr(each, "paths", None) or ()] for each in datasets]
        self._names = _output_names([path for paths in self._paths for path in paths])
        self._written: list[set[int]] = [set() for _ in datasets]
        for path, name in self._names.items():
            if self._folder / name == path:
                raise ValueError(f"Expected `folder` to be another than the images', but {path} would be replaced")

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the masks of a batch."""
        if not isinstance(prediction, Tensor) or prediction.ndim != 4:
            got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise ValueError(f"Expected predictions of (b, c, h, w) to write as masks, but got {got}")
        count = prediction.shape[1]
        names = [*(getattr(pl_module, "class_names", None) or (f"class_{i}" for i in range(count)))]
        labels = count == 1 or bool(getattr(pl_module, "multilabel", False))
        folders = _folder_names(names) if count > 1 else ["."]
        if not labels and count > 256:
            raise ValueError(f"Expected 256 classes or fewer, which is what a png's palette has, but got {count}")
        colours = [] if labels else class_colours(self.palette, count)
        if trainer.is_global_zero and not any(self._written):
            hexes = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours]
            table = (
                {"folder": folders, "class": names}
                if labels
                else {"value": range(count), "class": names, "colour": hexes}
            )
            _write_csv(self._folder / "classes.csv", table)
        paths, written = self._paths[dataloader_idx], self._written[dataloader_idx]
        for i, probabilities in enumerate(prediction):
            # Lightning knows no indices of what is not a map-style data set
            index = batch_indices[i] if batch_indices else len(written) * trainer.world_size + trainer.global_rank
            written.add(index)
            prefix = f"{dataloader_idx}_" if len(self._paths) > 1 else ""
            name = self._names[paths[index]] if paths else Path(f"{prefix}{index:06}.png")
            size = _image_size(paths[index]) if paths else (probabilities.shape[1], probabilities.shape[2])
            if labels:
                for label, folder in zip(probabilities, folders, strict=True):
                    mask = (_resized(label, size) > 0.5).byte() * 255
                    save_picture(Image.fromarray(mask.cpu().numpy()), self._folder / folder / name)
            else:
                picture = Image.fromarray(_most_probable(probabilities, size).cpu().numpy())
                picture.putpalette([value for colour in colours for value in colour])
                save_picture(picture, self._folder / name)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        parts: list[Any] = [self._written]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, self._written)
        # samplers may repeat samples until every process has as many
        total = sum(len(set().union(*indices)) for indices in zip(*parts, strict=True))
        if trainer.is_global_zero:
            print(f"Wrote masks of {total} images to {self._folder}")


def _output_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """Names each image's mask by its place below the folder that all share, and by its extension where needed."""
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths])
    names = {path: path.relative_to(root).with_suffix(".png") for path in paths}
    while clashing := {name for name, times in Counter(names.values()).items() if times > 1}:
        for path, name in names.items():
            if name in clashing:
                names[path] = Path(f"{path.relative_to(root)}.png")
    return names


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
