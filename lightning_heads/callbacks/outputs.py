"""Predictions of a whole evaluation, with the files that they are of."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader


@dataclass
class EvaluationOutputs:
    """What an evaluation gave, in the order of the data set.

    Attributes:
        indices: Index of each sample in the data set.
        predictions: Activated predictions `(n, k)`.
        targets: Targets `(n, ...)`, or None where there are none.
        dataset: The data set, whose `paths` name the files where it has them.
        names: Names of the classes or outputs.
        kind: Whether predictions are probabilities of one class, of several labels, or numbers.
        folder: Folder to write to.
    """

    indices: list[int]
    predictions: Tensor
    targets: Tensor | None
    dataset: Any
    names: list[str]
    kind: Literal["classes", "labels", "numbers"]
    folder: Path

    def files(self, i: int) -> list[str]:
        """Returns the file of the i-th prediction, or both of a pair, or its index in the data set."""
        paths = getattr(self.dataset, "paths", None)
        found = self.indices[i] if paths is None else paths[self.indices[i]]
        return [str(each) for each in (found if isinstance(found, tuple) else (found,))]


class OutputCollector(L.Callback):
    """Collects the predictions of `test` and `predict` over all processes, then writes something of them once.

    It takes loaders that do not shuffle, as those of Lightning's evaluation do not.

    Args:
        folder: Where to write; by default the folder of the trainer's logs.
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
        # every process must ask for the folder of the logs
        folder = self.folder or Path(trainer.log_dir or trainer.default_root_dir)
        predictions = torch.cat(self._predictions)
        targets = torch.cat(self._targets) if self._targets else None
        # Lightning's samplers deal samples to the processes in turn
        rows = [trainer.global_rank + i * trainer.world_size for i in range(len(predictions))]
        parts = [(rows, predictions, targets)]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(gathered, parts[0])
            parts = gathered
        self._reset()
        if not trainer.is_global_zero:
            return
        size = len(loader.dataset)  # type: ignore[arg-type]
        order = {row: (part, i) for part, (rows, _, _) in enumerate(parts) for i, row in enumerate(rows) if row < size}
        chosen = [order[row] for row in sorted(order)]
        collected = EvaluationOutputs(
            indices=sorted(order),
            predictions=torch.stack([parts[part][1][i] for part, i in chosen]),
            targets=None if targets is None else torch.stack([parts[part][2][i] for part, i in chosen]),  # type: ignore[index]
            dataset=loader.dataset,
            names=output_names(pl_module, predictions.shape[1], "output"),
            kind=_kind(pl_module),
            folder=folder,
        )
        collected.folder.mkdir(parents=True, exist_ok=True)
        print(f"Wrote {self.write(collected)}")


def _kind(pl_module: L.LightningModule) -> Literal["classes", "labels", "numbers"]:
    if not getattr(pl_module, "class_names", None):
        return "numbers"
    return "labels" if getattr(pl_module, "multilabel", False) else "classes"


def output_names(pl_module: L.LightningModule, count: int, default: str) -> list[str]:
    """Returns the task's `class_names`, or `default_0` and on."""
    return [*(getattr(pl_module, "class_names", None) or (f"{default}_{i}" for i in range(count)))]


def has_labels(pl_module: L.LightningModule, count: int) -> bool:
    """Tells whether each of `count` channels is a label of its own, rather than all together one class."""
    return count == 1 or bool(getattr(pl_module, "multilabel", False))
