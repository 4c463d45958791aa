"""Writes predictions to png files."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from ...utils.files import save_picture
from ..outputs import gather_objects, output_folder
from ..sample_order import check_batch_samplers, sample_orders, source_of, sources


class PictureWriter(BasePredictionWriter):
    """Writes each prediction `(c, h, w)` as one or more png files, batch by batch.

    If `photos` is the common parent folder of the data set's `paths`, the prediction of `photos/a/1.jpg` is written to
    `a/1.png`, or to `a/1.jpg.png` if `paths` has `photos/a/1.png` as well. Without `paths`, files are named by their
    index in the data set; those of an iterable-style data set are numbered in the order in which they arrive. Each file
    is written atomically. It may overwrite a file of an earlier run, but no input or target file of the data set or
    data module. Pass `return_predictions=False` to `trainer.predict`, which otherwise keeps every prediction in memory.

    Args:
        folder: Output folder; by default `predicted_<name>` in the folder of the trainer's logs.

    Raises:
        ValueError: If predictions are not maps, would overwrite a file of the data, or come from several data loaders.
    """

    name: str
    summary: str

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__("batch")
        self.folder = None if folder is None else Path(folder)

    @abstractmethod
    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Checks that a batch `(b, c, h, w)` can be drawn, and prepares the writer for it."""

    @abstractmethod
    def draw(self, prediction: Tensor, file: Path | None, dataset: Any) -> Iterable[tuple[str, Image.Image]]:
        """Draws a prediction `(c, h, w)` as pictures, with the subfolder of each.

        Args:
            prediction: The prediction.
            file: The file of the sample, or None if it is unknown.
            dataset: The data set that the file comes from, or None.
        """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "predict":
            check_batch_samplers(trainer)

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        orders = sample_orders(trainer)
        if len(orders) != 1:
            raise ValueError(f"Expected one loader to write {self.name} of, but got {len(orders)}")
        self._order = orders[0]
        self._folder = output_folder(trainer, self.folder, f"predicted_{self.name}").absolute()
        datasets = sources(self._order.dataset)
        paths = [Path(path).absolute() for each in datasets for path in getattr(each, "paths", None) or ()]
        self._names = _picture_names(paths)
        self._inputs = _input_files(datasets, getattr(trainer, "datamodule", None))
        self._written: set[int] = set()

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
        """Writes the pictures of a batch."""
        if not isinstance(prediction, Tensor) or prediction.ndim != 4:
            got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise ValueError(f"Expected predictions of (b, c, h, w) to write as {self.name}, but got {got}")
        self.prepare(trainer, pl_module, prediction)
        for each, index in zip(prediction, self._order.indices(batch_idx, len(prediction)), strict=True):
            self._written.add(index)
            found = self._order.files(index)
            file = Path(found[0]).absolute() if found else None
            dataset = source_of(self._order.dataset, index)[0] if found else None
            name = Path(f"{index:06}.png") if file is None else self._names[file]
            for subfolder, picture in self.draw(each, file, dataset):
                path = self._folder / subfolder / name
                if os.path.realpath(path) in self._inputs:
                    raise ValueError(
                        f"Expected `folder` to differ from the folders of the data, but {path} would be overwritten"
                    )
                save_picture(picture, path)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # a union, as samplers repeat samples so that all ranks have the same number
        total = len(set().union(*gather_objects(trainer, self._written)))
        if trainer.is_global_zero:
            print(f"Wrote {self.summary.format(total)} to {self._folder}")


def _input_files(datasets: Sequence[Any], data: Any) -> set[str]:
    """Returns the input and target files of data sets and of all splits of a data module."""
    splits = getattr(data, "samples", None)
    owners = [*datasets, *(splits.values() if isinstance(splits, dict) else ())]
    return _files([getattr(each, name, None) for each in owners for name in ("paths", "targets", "masks")])


def _files(nested: Any) -> set[str]:
    """Returns the real paths of files in nested lists and tuples; ignores other values, such as class indices."""
    if isinstance(nested, (str, Path)):
        return {os.path.realpath(nested)}
    return set().union(*map(_files, nested)) if isinstance(nested, (list, tuple)) else set()


def _picture_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """Maps each image to a unique png path relative to the common parent, which keeps the image's suffix if needed."""
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths])
    names = {path: path.relative_to(root).with_suffix(".png") for path in paths}
    while duplicates := {name for name, times in Counter(names.values()).items() if times > 1}:
        for path, name in names.items():
            if name in duplicates:
                names[path] = Path(f"{path.relative_to(root)}.png")
    return names
