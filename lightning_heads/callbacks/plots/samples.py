"""Pictures of a few samples of each evaluation, chosen while it runs."""

from abc import abstractmethod
from bisect import insort
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from ...drawing.sheet import Row, draw_sheet
from ...utils.files import save_picture


@dataclass(frozen=True)
class Sample:
    """A sample that is kept, drawn: how good its prediction is, and its index in the data set."""

    score: float
    index: int
    row: Row

    @property
    def order(self) -> tuple[float, int]:
        """What samples are sorted by, from the worst to the best."""
        return self.score, self.index


class SamplePlot(L.Callback):
    """Draws the worst samples of every validation and test, and some that are the same each time.

    The pictures go to the files `val_<name>_worst_epoch_003.png` and `val_<name>_fixed_epoch_003.png`, epochs counted
    from 0, `test_<name>_worst.png` and `test_<name>_fixed.png`, and to every logger that takes pictures, as those of
    TensorBoard and Weights & Biases do. The fixed samples are spread evenly over the data set. Of several loaders the
    first is drawn. A process never keeps more than `2 * count` samples, as they are drawn.

    Args:
        folder: Where to write; by default the folder `pictures` in that of the trainer's logs.
        count: How many of the worst samples, and how many fixed ones.

    Raises:
        ValueError: If the loader does not keep the order of its data set, by which samples are known.
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
        """Returns how good each prediction of a batch is, `(b,)`."""

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
        # `trainer.val_dataloaders` of a validation after a fit would be those of the fit
        loop = trainer._evaluation_loop
        assert loop._combined_loader is not None
        loader = loop._combined_loader.flattened[0]
        self._paths = getattr(getattr(loader, "dataset", None), "paths", None)
        self._indices = _indices(loader, loop.max_batches[0])
        known = len(self._indices)
        self._places = {i * known // self.count for i in range(self.count)} if known else {*range(self.count)}
        self._shift, self._step = (0, 1) if known else (trainer.global_rank, trainer.world_size)
        self._seen = 0
        self._worst, self._fixed = [], []

    def _add(self, pl_module: L.LightningModule, outputs: Any, batch: Any) -> None:
        if not (isinstance(outputs, dict) and "predictions" in outputs):
            return
        predictions, target = outputs["predictions"].detach().float(), outputs["target"]
        scores = self.scores(pl_module, predictions, target)
        for i, score in enumerate(torch.where(scores.isnan(), -torch.inf, scores).tolist()):
            place, self._seen = self._seen, self._seen + 1
            index = self._indices[place] if self._indices else self._shift + place * self._step
            is_worst = len(self._worst) < self.count or (score, index) < self._worst[-1].order
            if not is_worst and place not in self._places:
                continue
            file = str(index) if self._paths is None else str(self._paths[index])
            row = self.draw(pl_module, batch[0][i].cpu(), predictions[i].cpu(), target[i].cpu(), score, file)
            sample = Sample(score, index, row)
            if is_worst:
                insort(self._worst, sample, key=lambda kept: kept.order)
                del self._worst[self.count :]
            if place in self._places:
                self._fixed.append(sample)

    def _finish(self, trainer: L.Trainer, stage: str, epoch: int | None) -> None:
        # every process must ask for the folder of the logs
        folder = self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "pictures"
        parts: list[Any] = [(self._worst, self._fixed)]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, (self._worst, self._fixed))
        self._worst, self._fixed = [], []
        if not trainer.is_global_zero:
            return
        # samplers repeat samples until every process has as many
        worst = sorted({s.index: s for part, _ in parts for s in part}.values(), key=lambda sample: sample.order)
        fixed = sorted({s.index: s for _, part in parts for s in part}.values(), key=lambda sample: sample.index)
        spread = sorted({i * len(fixed) // self.count for i in range(self.count)})
        for which, samples in (("worst", worst[: self.count]), ("fixed", [fixed[i] for i in spread] if fixed else [])):
            if samples:
                title = f"{stage} {self.name}, {which}" + ("" if epoch is None else f", epoch {epoch}")
                sheet = draw_sheet(title, self.columns, [sample.row for sample in samples])
                tag = f"{stage}_{self.name}_{which}"
                save_picture(sheet, folder / (tag + ("" if epoch is None else f"_epoch_{epoch:03}") + ".png"))
                _log(trainer, tag, sheet)


def _indices(loader: Any, max_batches: int | float) -> list[int]:
    """Indices in the data set of the samples that this process gets, in order; none where they cannot be known."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return []
    batches = loader.batch_sampler
    order = loader.sampler if batches is None else batches
    if type(order) is BatchSampler:
        order = order.sampler
    # Lightning wraps a sampler of one's own as if it were a data set
    shared = isinstance(order, DistributedSampler) and not order.shuffle and order.dataset is loader.dataset
    if not (shared or isinstance(order, SequentialSampler)):
        raise ValueError(
            "Expected a loader that does not shuffle, as samples are known by their order, but it takes them by "
            f"{type(order).__name__}"
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
