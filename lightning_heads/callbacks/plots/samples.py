"""Plots of the worst and of fixed samples of each evaluation, selected while it runs."""

from abc import abstractmethod
from bisect import insort
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ...drawing.sheet import Row, draw_sheet
from ...utils.files import save_picture
from ..outputs import gather_objects, log_picture, output_folder
from ..sample_order import SampleOrder, sample_orders


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


@dataclass
class _Selection:
    """Samples of a data loader that are to be drawn: the worst so far, and those at fixed positions on this rank."""

    order: SampleOrder
    fixed_positions: set[int]
    seen: int = 0
    worst: list[Sample] = field(default_factory=list)
    fixed: list[Sample] = field(default_factory=list)


class SamplePlot(L.Callback):
    """Draws the worst samples, and a fixed selection of samples, of every validation and test.

    The pictures are written to `val_<name>_worst_epoch_003.png` and `val_<name>_fixed_epoch_003.png`, epochs counted
    from 0, `test_<name>_worst.png` and `test_<name>_fixed.png`, and to every logger that accepts images, such as those
    of TensorBoard and Weights & Biases. The fixed samples are evenly spaced in the data set. Of several data loaders,
    each has pictures with its number, such as `val_<name>_worst_1_epoch_003.png`. Each rank keeps at most `2 * count`
    samples of a loader in memory, already drawn.

    Args:
        folder: Output folder; by default `pictures` in the folder of the trainer's logs.
        count: Number of worst samples, and of fixed samples.

    Raises:
        ValueError: If the sampler of a data loader may yield another order each time that it is iterated.
    """

    name: str
    columns: tuple[str, ...]

    def __init__(self, folder: str | Path | None = None, count: int = 4) -> None:
        if count < 1:
            raise ValueError(f"Expected `count` to be at least 1, but got {count}")
        self.folder = None if folder is None else Path(folder)
        self.count = count
        self._selections: list[_Selection] = []  # of each data loader

    @abstractmethod
    def scores(self, pl_module: L.LightningModule, predictions: Tensor, target: Tensor) -> Tensor:
        """Returns a score of each prediction of a batch, `(b,)`; higher is better."""

    @abstractmethod
    def draw(
        self, pl_module: L.LightningModule, image: Tensor, prediction: Tensor, target: Tensor, score: float, file: str
    ) -> Row:
        """Draws one sample: a picture for each of `columns`."""

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._selections = []
        for order in sample_orders(trainer):
            count, size = self.count, order.size
            positions = range(count) if size is None else (i * size // count for i in range(count) if size)
            self._selections.append(_Selection(order, {*positions}))

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking and isinstance(outputs, dict) and "predictions" in outputs:
            self._add(pl_module, outputs, batch, batch_idx, self._selections[dataloader_idx])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._finish(trainer, "val", trainer.current_epoch)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, "test", None)

    def _add(
        self,
        pl_module: L.LightningModule,
        outputs: dict[str, Tensor],
        batch: Any,
        batch_idx: int,
        selection: _Selection,
    ) -> None:
        predictions, target = outputs["predictions"].detach().float(), outputs["target"]
        scores = self.scores(pl_module, predictions, target)
        scores = torch.where(scores.isnan(), -torch.inf, scores)
        indices = selection.order.indices(batch_idx, len(scores))
        for i, (score, index) in enumerate(zip(scores.tolist(), indices, strict=True)):
            is_fixed, selection.seen = selection.seen in selection.fixed_positions, selection.seen + 1
            is_worst = len(selection.worst) < self.count or (score, index) < selection.worst[-1].order
            if not is_worst and not is_fixed:
                continue
            file = " | ".join(map(str, selection.order.files(index) or [index]))
            row = self.draw(pl_module, batch[0][i].cpu(), predictions[i].cpu(), target[i].cpu(), score, file)
            sample = Sample(score, index, row)
            if is_worst:
                insort(selection.worst, sample, key=lambda kept: kept.order)
                del selection.worst[self.count :]
            if is_fixed:
                selection.fixed.append(sample)

    def _finish(self, trainer: L.Trainer, stage: str, epoch: int | None) -> None:
        folder = output_folder(trainer, self.folder, "pictures")
        ranks = gather_objects(trainer, [(each.worst, each.fixed) for each in self._selections])
        count, self._selections = len(self._selections), []
        if not trainer.is_global_zero:
            return
        for number in range(count):
            parts = [selections[number] for selections in ranks]
            # by index, as samplers repeat samples so that all ranks have the same number
            worst = sorted({s.index: s for part, _ in parts for s in part}.values(), key=lambda sample: sample.order)
            fixed = sorted({s.index: s for _, part in parts for s in part}.values(), key=lambda sample: sample.index)
            spaced = sorted({i * len(fixed) // self.count for i in range(self.count)})
            for which, samples in (("worst", worst[: self.count]), ("fixed", [fixed[i] for i in spaced if fixed])):
                if not samples:
                    continue
                loader = f" of loader {number}" if count > 1 else ""
                title = f"{stage} {self.name}, {which}{loader}" + ("" if epoch is None else f", epoch {epoch}")
                sheet = draw_sheet(title, self.columns, [sample.row for sample in samples])
                tag = f"{stage}_{self.name}_{which}" + (f"_{number}" if count > 1 else "")
                save_picture(sheet, folder / (tag + ("" if epoch is None else f"_epoch_{epoch:03}") + ".png"))
                log_picture(trainer, tag, sheet)
