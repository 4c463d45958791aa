"""Collects the predictions of an evaluation across ranks, and helpers of callbacks that write or plot them."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor

from .sample_order import SampleOrder, check_batch_samplers, files_of_sample, sample_orders

T = TypeVar("T")


@dataclass
class EvaluationOutputs:
    """Predictions and targets of all samples of a data loader, in the order of its sampler.

    Attributes:
        indices: Index of each sample in the data set.
        predictions: Predictions `(n, k)`, after the task's activation.
        targets: Targets `(n, ...)`, or None in `predict`.
        dataset: The data set; its `paths`, if it has them, are the files of the samples. None if it is unknown which of
            its samples the predictions belong to.
        names: Names of the classes or outputs.
        kind: Whether predictions are probabilities of one class (`classes`), of several labels (`labels`), or numbers.
        folder: Output folder.
        prefix: Beginning of the names of output files.
        suffix: End of the names of output files.
    """

    indices: list[int]
    predictions: Tensor
    targets: Tensor | None
    dataset: Any
    names: list[str]
    kind: Literal["classes", "labels", "numbers"]
    folder: Path
    prefix: str = ""
    suffix: str = ""

    def files(self, i: int) -> list[str]:
        """Returns the file of the i-th prediction, both files of a pair, or its index if its file is unknown."""
        return [*map(str, files_of_sample(self.dataset, self.indices[i]) or [self.indices[i]])]

    def output_path(self, filename: str) -> Path:
        """Returns the path of an output file."""
        path = self.folder / filename
        return path.with_name(f"{self.prefix}{path.stem}{self.suffix}{path.suffix}")


@dataclass
class _Batch:
    """Outputs of a batch of a data loader on one rank."""

    indices: list[int]
    predictions: Tensor
    targets: Tensor | None


class OutputCollector(L.Callback):
    """Gathers the predictions of `validate`, `test` and `predict` across ranks, then calls `write` on rank zero.

    It is called once for each data loader that has predictions. Of several loaders, the number of each is added to the
    names of its files, such as `predictions_0.csv` and `predictions_1.csv`. The names of files of `validate` begin with
    `val_`. Pictures are also passed to the loggers, see `log_picture`.

    Args:
        folder: Output folder; by default that of the trainer's logs.

    Raises:
        ValueError: If the sampler of a loader may yield another order each time that it is iterated, except in
            `predict`; or if predictions are neither `(b,)` nor `(b, k)`, or fewer than the samples of their batch.
    """

    stages: tuple[TrainerFn, ...] = (TrainerFn.VALIDATING, TrainerFn.TESTING)

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._orders: list[SampleOrder] = []  # of each data loader
        self._batches: list[list[_Batch]] = []

    @abstractmethod
    def write(self, collected: EvaluationOutputs) -> Path:
        """Writes a file and returns its path."""

    def check_order(self, order: SampleOrder) -> None:
        """Raises ValueError before the first batch if the outputs of a loader cannot be written."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "predict":
            check_batch_samplers(trainer)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._orders = sample_orders(trainer) if trainer.state.fn in self.stages else []
        self._batches = [[] for _ in self._orders]
        for order in self._orders:
            self.check_order(order)

    on_validation_epoch_start = on_predict_epoch_start = on_test_epoch_start

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._orders and isinstance(outputs, dict) and "predictions" in outputs:
            self._add(outputs["predictions"], outputs.get("target"), batch_idx, dataloader_idx)

    on_validation_batch_end = on_test_batch_end

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._orders:
            self._add(outputs, None, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn not in self.stages:
            return
        # collective, so that ranks without predictions take part too
        folder = output_folder(trainer, self.folder)
        ranks = gather_objects(trainer, self._batches)
        orders, self._orders, self._batches = self._orders, [], []
        if not trainer.is_global_zero:
            return
        for number, order in enumerate(orders):
            merged = _merge([batches[number] for batches in ranks])
            if merged is None:
                continue
            collected = EvaluationOutputs(
                merged.indices,
                merged.predictions,
                merged.targets,
                dataset=order.dataset if order.is_known else None,
                names=output_names(pl_module, merged.predictions.shape[1], "output"),
                kind=_kind(pl_module),
                folder=folder,
                prefix="val_" if trainer.state.fn == TrainerFn.VALIDATING else "",
                suffix=f"_{number}" if len(orders) > 1 else "",
            )
            folder.mkdir(parents=True, exist_ok=True)
            path = self.write(collected)
            print(f"Wrote {path}")
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    log_picture(trainer, path.stem, picture)

    on_validation_epoch_end = on_predict_epoch_end = on_test_epoch_end

    def _add(self, predictions: Any, target: Tensor | None, batch_idx: int, dataloader_idx: int) -> None:
        if not isinstance(predictions, Tensor) or predictions.ndim not in (1, 2):
            got = tuple(predictions.shape) if isinstance(predictions, Tensor) else type(predictions).__name__
            raise ValueError(
                f"Expected predictions of (b,) or (b, k) for {type(self).__name__}, but got {got}; `MaskWriter` and "
                "`ImageWriter` write maps"
            )
        indices = self._orders[dataloader_idx].indices(batch_idx, len(predictions))
        predictions = predictions.detach().float().cpu().reshape(len(predictions), -1)
        self._batches[dataloader_idx].append(
            _Batch(indices, predictions, None if target is None else target.detach().cpu())
        )


def _merge(ranks: list[list[_Batch]]) -> _Batch | None:
    """Merges the batches of all ranks in the order of the sampler, whose samples the ranks take in turn."""
    batches = [batch for rank in ranks for batch in rank]
    if not batches:
        return None
    indices = [index for batch in batches for index in batch.indices]
    turns = [(turn, rank) for rank, of_rank in enumerate(ranks) for turn in range(sum(len(b.indices) for b in of_rank))]
    rows = sorted(range(len(indices)), key=turns.__getitem__)
    if len(ranks) > 1:
        # samplers repeat samples so that all ranks have the same number
        first: dict[int, int] = {}
        for row in rows:
            first.setdefault(indices[row], row)
        rows = [*first.values()]
    targets = [batch.targets for batch in batches if batch.targets is not None]
    return _Batch(
        [indices[row] for row in rows],
        torch.cat([batch.predictions for batch in batches])[rows],
        torch.cat(targets)[rows] if targets else None,
    )


def output_folder(trainer: L.Trainer, folder: Path | None, default: str = "") -> Path:
    """Returns `folder`, or else `default` in the folder of the trainer's logs.

    All ranks must call it, as `trainer.log_dir` is broadcast.
    """
    return folder or Path(trainer.log_dir or trainer.default_root_dir, default)


def log_picture(trainer: L.Trainer, tag: str, picture: Image.Image) -> None:
    """Passes a picture to every logger that accepts images, such as those of TensorBoard and Weights & Biases."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=tag, images=[picture], step=trainer.global_step)
            continue
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_image"):
            experiment.add_image(tag, np.asarray(picture.convert("RGB")), trainer.global_step, dataformats="HWC")


def gather_objects(trainer: L.Trainer, value: T) -> list[T]:
    """Returns the values of all ranks, in the order of the ranks; all ranks must call it."""
    values = [value]
    if trainer.world_size > 1:
        values *= trainer.world_size
        dist.all_gather_object(values, value)
    return values


def _kind(pl_module: L.LightningModule) -> Literal["classes", "labels", "numbers"]:
    if not getattr(pl_module, "class_names", None):
        return "numbers"
    return "labels" if getattr(pl_module, "multilabel", False) else "classes"


def output_names(pl_module: L.LightningModule, count: int, default: str) -> list[str]:
    """Returns the task's `class_names`, or by default `<default>_0`, `<default>_1` and so on."""
    return [*(getattr(pl_module, "class_names", None) or (f"{default}_{i}" for i in range(count)))]


def has_labels(pl_module: L.LightningModule, count: int) -> bool:
    """Returns whether each of `count` channels is a binary label, rather than one class of several."""
    return count == 1 or bool(getattr(pl_module, "multilabel", False))
