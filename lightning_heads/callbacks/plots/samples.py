"""Plots of the worst and of fixed samples of each evaluation, selected while it runs."""

from abc import abstractmethod
from bisect import insort
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from ...drawing.sheet import Row, draw_sheet
from ...utils.files import save_picture
from ..outputs import gather_objects, output_folder


@dataclass(frozen=True)
class Sample:
    """A drawn sample, with the score of its prediction and its index in the data set."""

    score: float
    index: int
    row: Row

    @property
    def order(self) -> tuple[float, int]:
        """Sort key, from the worst sample to the best."""
        return self.score, self.index


class SamplePlot(L.Callback):
    """Draws the worst samples, and a fixed selection of samples, of every validation and test.

    The pictures are written to `val_<name>_worst_epoch_003.png` and `val_<name>_fixed_epoch_003.png`, epochs counted
    from 0, `test_<name>_worst.png` and `test_<name>_fixed.png`, and to every logger that accepts images, such as those
    of TensorBoard and Weights & Biases. The fixed samples are evenly spaced in the data set. Of several data loaders
    only the first is used. Each rank keeps at most `2 * count` samples in memory, already drawn.

    Args:
        folder: Output folder; by default `pictures` in the folder of the trainer's logs.
        count: Number of worst samples, and of fixed samples.

    Raises:
        ValueError: If the data loader does not keep the order of its data set, from which indices are derived.
    """

    name: str
    columns: tuple[str, ...]

    def __init__(self, folder: str | Path | None = None, count: int = 4) -> None:
        if count < 1:
            raise ValueError(f"Expected `count` to be at least 1, but got {count}")
        self.folder = None if folder is None else Path(folder)
        self.count = count
        self._worst: list[Sample] = []
        self._fixed: list[Sample] = []

    @abstractmethod
    def scores(self, pl_module: L.LightningModule, predictions: Tensor, target: Tensor) -> Tensor:
        """Returns a score of each prediction of a batch, `(b,)`; higher is better."""

    @abstractmethod
    def draw(
        self, pl_module: L.LightningModule, image: Tensor, prediction: Tensor, target: Tensor, score: float, file: str
    ) -> Row:
        """Draws one sample: a picture for each of `columns`."""

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0 and not trainer.sanity_checking:
            self._add(pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0:
            self._add(pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._finish(trainer, "val", trainer.current_epoch)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, "test", None)

    def _start(self, trainer: L.Trainer) -> None:
        # in `trainer.validate` after a fit, `trainer.val_dataloaders` would be those of the fit
        loop = trainer._evaluation_loop
        assert loop._combined_loader is not None
        loader = loop._combined_loader.flattened[0]
        self._paths = getattr(getattr(loader, "dataset", None), "paths", None)
        self._indices = _indices(loader, loop.max_batches[0])
        size = len(self._indices)
        self._fixed_positions = {i * size // self.count for i in range(self.count)} if size else {*range(self.count)}
        self._offset, self._stride = (0, 1) if size else (trainer.global_rank, trainer.world_size)
        self._seen = 0
        self._worst, self._fixed = [], []

    def _add(self, pl_module: L.LightningModule, outputs: Any, batch: Any) -> None:
        if not (isinstance(outputs, dict) and "predictions" in outputs):
            return
        predictions, target = outputs["predictions"].detach().float(), outputs["target"]
        scores = self.scores(pl_module, predictions, target)
        for i, score in enumerate(torch.where(scores.isnan(), -torch.inf, scores).tolist()):
            position, self._seen = self._seen, self._seen + 1
            index = self._indices[position] if self._indices else self._offset + position * self._stride
            is_worst = len(self._worst) < self.count or (score, index) < self._worst[-1].order
            if not is_worst and position not in self._fixed_positions:
                continue
            file = str(index) if self._paths is None else str(self._paths[index])
            row = self.draw(pl_module, batch[0][i].cpu(), predictions[i].cpu(), target[i].cpu(), score, file)
            sample = Sample(score, index, row)
            if is_worst:
                insort(self._worst, sample, key=lambda kept: kept.order)
                del self._worst[self.count :]
            if position in self._fixed_positions:
                self._fixed.append(sample)

    def _finish(self, trainer: L.Trainer, stage: str, epoch: int | None) -> None:
        folder = output_folder(trainer, self.folder, "pictures")
        ranks = gather_objects(trainer, (self._worst, self._fixed))
        self._worst, self._fixed = [], []
        if not trainer.is_global_zero:
            return
        # by index, as samplers repeat samples so that all ranks have the same number
        worst = sorted({s.index: s for part, _ in ranks for s in part}.values(), key=lambda sample: sample.order)
        fixed = sorted({s.index: s for _, part in ranks for s in part}.values(), key=lambda sample: sample.index)
        spaced = sorted({i * len(fixed) // self.count for i in range(self.count)})
        for which, samples in (("worst", worst[: self.count]), ("fixed", [fixed[i] for i in spaced] if fixed else [])):
            if samples:
                title = f"{stage} {self.name}, {which}" + ("" if epoch is None else f", epoch {epoch}")
                sheet = draw_sheet(title, self.columns, [sample.row for sample in samples])
                tag = f"{stage}_{self.name}_{which}"
                save_picture(sheet, folder / (tag + ("" if epoch is None else f"_epoch_{epoch:03}") + ".png"))
                _log(trainer, tag, sheet)


def _indices(loader: Any, max_batches: int | float) -> list[int]:
    """Returns the data set indices of this rank's samples, in order; an empty list if they are unknown."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return []
    batches = loader.batch_sampler
    order = loader.sampler if batches is None else batches
    if type(order) is BatchSampler:
        order = order.sampler
    # Lightning wraps a custom sampler in a `DistributedSampler` whose `dataset` is that sampler
    distributed = isinstance(order, DistributedSampler) and not order.shuffle and order.dataset is loader.dataset
    if not (distributed or isinstance(order, SequentialSampler)):
        raise ValueError(
            "Expected a data loader that does not shuffle, as sample indices are derived from its order, but its "
            f"sampler is {type(order).__name__}"
        )
    if batches is None:
        return []
    return [*chain.from_iterable(islice(batches, None if max_batches == float("inf") else int(max_batches)))]


def _log(trainer: L.Trainer, tag: str, sheet: Image.Image) -> None:
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=tag, images=[sheet], step=trainer.global_step)
            continue
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):
            experiment.add_image(tag, np.asarray(sheet), trainer.global_step, dataformats="HWC")
