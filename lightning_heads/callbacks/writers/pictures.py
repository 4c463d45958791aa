"""Predictions as picture files."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor

from ...utils.files import save_picture


class PictureWriter(BasePredictionWriter):
    """Writes each prediction `(c, h, w)` as one or more png files, batch by batch.

    Where `photos` is the folder that all files in the data set's `paths` share, `photos/a/1.jpg` is written to
    `a/1.png`, or to `a/1.jpg.png` if there is `photos/a/1.png` as well. A data set without `paths` names its files by
    their index. A picture appears whole or not at all. It may replace one of an earlier run, but none of the files that
    the data set or the data module knows. Unless it is told `return_predictions=False`, `trainer.predict` keeps every
    prediction in memory.

    Args:
        folder: Where to write; by default the folder `predicted_<name>` in that of the trainer's logs.

    Raises:
        ValueError: If predictions are not maps, would replace a file of the data, or come from several loaders.
    """

    name: str
    summary: str

    def __init__(self, folder: str | Path | None = None) -> None:
        super().__init__("batch")
        self.folder = None if folder is None else Path(folder)

    @abstractmethod
    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Refuses a batch `(b, c, h, w)` that cannot be drawn, and gets ready to draw it."""

    @abstractmethod
    def draw(self, prediction: Tensor, file: Path | None) -> Iterable[tuple[str, Image.Image]]:
        """Draws a prediction `(c, h, w)` of a file, if it is of one: pictures, each with the subfolder it goes to."""

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.predict_loop._combined_loader is not None
        loaders = trainer.predict_loop._combined_loader.flattened
        if len(loaders) != 1:
            raise ValueError(f"Expected one loader to write {self.name} of, but got {len(loaders)}")
        self._dataset = getattr(loaders[0], "dataset", None)
        default = Path(trainer.log_dir or trainer.default_root_dir, f"predicted_{self.name}")
        self._folder = (self.folder or default).absolute()
        self._paths = [Path(path).absolute() for path in getattr(self._dataset, "paths", None) or ()]
        self._names = _output_names(self._paths)
        self._inputs = _input_files(self._dataset, getattr(trainer, "datamodule", None))
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
        for i, each in enumerate(prediction):
            # Lightning knows no indices of what is not a map-style data set
            index = batch_indices[i] if batch_indices else len(self._written) * trainer.world_size + trainer.global_rank
            self._written.add(index)
            file = self._paths[index] if self._paths else None
            name = Path(f"{index:06}.png") if file is None else self._names[file]
            for subfolder, picture in self.draw(each, file):
                path = self._folder / subfolder / name
                if os.path.realpath(path) in self._inputs:
                    raise ValueError(f"Expected `folder` to be another than the data's, but {path} would be replaced")
                save_picture(picture, path)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        parts: list[Any] = [self._written]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, self._written)
        # samplers may repeat samples until every process has as many
        total = len(set().union(*parts))
        if trainer.is_global_zero:
            print(f"Wrote {self.summary.format(total)} to {self._folder}")


def _input_files(dataset: Any, data: Any) -> set[str]:
    """Returns the files of a data set and of all splits of a data module: images, and targets that are files."""
    splits = getattr(data, "samples", None)
    sources = [dataset, *(splits.values() if isinstance(splits, dict) else ())]
    return _files([getattr(each, name, None) for each in sources for name in ("paths", "targets", "masks")])


def _files(nested: Any) -> set[str]:
    """Returns the files in lists and tuples, which may hold numbers as well."""
    if isinstance(nested, (str, Path)):
        return {os.path.realpath(nested)}
    return set().union(*map(_files, nested)) if isinstance(nested, (list, tuple)) else set()


def _output_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """Names each image's picture by its place below the folder that all share, and by its extension where needed."""
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths])
    names = {path: path.relative_to(root).with_suffix(".png") for path in paths}
    while clashing := {name for name, times in Counter(names.values()).items() if times > 1}:
        for path, name in names.items():
            if name in clashing:
                names[path] = Path(f"{path.relative_to(root)}.png")
    return names
