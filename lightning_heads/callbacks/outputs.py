"""Collects predictions of a test or predict run across ranks, and helpers of callbacks that write or plot them."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

T = TypeVar("T")


@dataclass
class EvaluationOutputs:
    """Predictions and targets of all samples of an evaluation, in the order of the data set.

    Attributes:
        indices: Index of each sample in the data set.
        predictions: Predictions `(n, k)`, after the task's activation.
        targets: Targets `(n, ...)`, or None in `predict`.
        dataset: The data set; its `paths`, if it has them, are the files of the samples.
        names: Names of the classes or outputs.
        kind: Whether predictions are probabilities of one class (`classes`), of several labels (`labels`), or numbers.
        folder: Output folder.
    """

    indices: list[int]
    predictions: Tensor
    targets: Tensor | None
    dataset: Any
    names: list[str]
    kind: Literal["classes", "labels", "numbers"]
    folder: Path

    def files(self, i: int) -> list[str]:
        """Returns the file of the i-th prediction, both files of a pair, or its index in a data set without `paths`."""
        paths = getattr(self.dataset, "paths", None)
        found = self.indices[i] if paths is None else paths[self.indices[i]]
        return [str(each) for each in (found if isinstance(found, tuple) else (found,))]


class OutputCollector(L.Callback):
    """Gathers the predictions of `test` and `predict` across ranks, then calls `write` on rank zero.

    Data loaders must not shuffle; Lightning's evaluation loaders do not.

    Args:
        folder: Output folder; by default that of the trainer's logs.
    """

    stages: tuple[str, ...] = ("test",)

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._reset()

    @abstractmethod
    def write(self, collected: EvaluationOutputs) -> Path:
        """Writes a file and returns its path."""

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reset()

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._reset()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "test" in self.stages and isinstance(outputs, dict) and "predictions" in outputs:
            self._add(outputs["predictions"], outputs["target"])

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "predict" in self.stages:
            self._add(outputs, None)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, trainer.test_dataloaders)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, trainer.predict_dataloaders)

    def _reset(self) -> None:
        self._predictions: list[Tensor] = []
        self._targets: list[Tensor] = []

    def _add(self, predictions: Tensor, target: Tensor | None) -> None:
        predictions = predictions.detach().float().cpu()
        self._predictions.append(predictions[:, None] if predictions.ndim == 1 else predictions)
        if target is not None:
            self._targets.append(target.detach().cpu())

    def _finish(self, trainer: L.Trainer, pl_module: L.LightningModule, loaders: Any) -> None:
        if not self._predictions:
            return
        loader: DataLoader[Any] = loaders[0] if isinstance(loaders, (list, tuple)) else loaders
        folder = output_folder(trainer, self.folder)
        predictions = torch.cat(self._predictions)
        targets = torch.cat(self._targets) if self._targets else None
        # Lightning's samplers assign samples to the ranks round-robin
        rows = [trainer.global_rank + i * trainer.world_size for i in range(len(predictions))]
        ranks = gather_objects(trainer, (rows, predictions, targets))
        self._reset()
        if not trainer.is_global_zero:
            return
        size = len(loader.dataset)  # type: ignore[arg-type]
        # rows beyond the data set are samples that the sampler repeats, so that all ranks have the same number
        source = {row: (rank, i) for rank, (rows, _, _) in enumerate(ranks) for i, row in enumerate(rows) if row < size}
        ordered = [source[row] for row in sorted(source)]
        collected = EvaluationOutputs(
            indices=sorted(source),
            predictions=torch.stack([ranks[rank][1][i] for rank, i in ordered]),
            targets=None if targets is None else torch.stack([ranks[rank][2][i] for rank, i in ordered]),  # type: ignore[index]
            dataset=loader.dataset,
            names=output_names(pl_module, predictions.shape[1], "output"),
            kind=_kind(pl_module),
            folder=folder,
        )
        collected.folder.mkdir(parents=True, exist_ok=True)
        print(f"Wrote {self.write(collected)}")


def output_folder(trainer: L.Trainer, folder: Path | None, default: str = "") -> Path:
    """Returns `folder`, or else `default` in the folder of the trainer's logs.

    All ranks must call it, as `trainer.log_dir` is broadcast.
    """
    return folder or Path(trainer.log_dir or trainer.default_root_dir, default)


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
