"""Test-time augmentation."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ..data import AugTransforms
from ..data.transforms.augment import dihedral
from ..tasks.base import Stage, TransferModule, log_evaluation
from ..utils.modules import uncompiled

Group = Literal["flips", "dihedral"]

# Number of quarter turns, and whether to flip, for each symmetry of a square but the identity. The first three are also
# symmetries of a rectangle.
_ELEMENTS: dict[str, list[tuple[int, bool]]] = {
    "flips": [(0, True)],
    "dihedral": [(0, True), (2, True), (2, False), (1, False), (3, False), (1, True), (3, True)],
}


class TestTimeAugmentation(L.LightningModule):
    """Combines a trained task's predictions on augmented images with those on the plain images: fastai's `tta`.

    Pass it to `trainer.validate`, `test` and `predict` instead of the task; it logs and returns what the task would.
    The task's activation is applied first, then `torch.lerp(augmented.mean(0), plain, beta)`. The loss is that of the
    plain outputs. Checkpoints of the task can be passed as `ckpt_path`.

    Args:
        task: The trained task; one that `torch.compile` returned runs uncompiled. Its inputs are images, float
            `(b, c, h, w)` in 0..1.
        augmentation: Augments an image `(c, h, w)`; fastai's `AugTransforms` by default. Or `flips` for the horizontal
            flip, or `dihedral` for all flips and quarter turns (half turns if images are not square). These two are
            exact and deterministic; predictions that are maps `(b, ..., h, w)` require one of them, and are transformed
            back before the mean.
        n: Number of augmented passes; by default four, or, with `flips` and `dihedral`, one for each flip and turn,
            which is also the maximum.
        beta: Weight of the plain predictions. With `dihedral`, 1/8 gives all eight passes the same weight.
        reduce: `mean` as above, or `max` for the maximum over all passes, the plain one included, without `beta`.

    Raises:
        ValueError: If inputs are not images, or predictions are maps and the augmentation cannot be inverted.

    >>> task = TransferModule(nn.Conv2d(3, 2, 1), nn.CrossEntropyLoss())
    >>> TestTimeAugmentation(task, "dihedral")(torch.rand(4, 3, 8, 8)).shape
    torch.Size([4, 2, 8, 8])
    """

    __test__ = False  # otherwise pytest collects this class as a test

    def __init__(
        self,
        task: TransferModule,
        augmentation: nn.Module | Group | None = None,
        *,
        n: int | None = None,
        beta: float = 0.25,
        reduce: Literal["mean", "max"] = "mean",
    ) -> None:
        super().__init__()
        task = uncompiled(task)
        if isinstance(augmentation, str) and augmentation not in _ELEMENTS:
            raise ValueError(
                f"Expected `augmentation` to be {', '.join(_ELEMENTS)} or a module, but got {augmentation!r}"
            )
        if n is not None and n < 1:
            raise ValueError(f"Expected `n` to be at least 1, but got {n}")
        if not 0 <= beta <= 1:
            raise ValueError(f"Expected `beta` in [0, 1], but got {beta}")
        if reduce not in ("mean", "max"):
            raise ValueError(f"Expected `reduce` to be mean or max, but got {reduce!r}")
        # under the task's own names and before it, as a trainer that has tested the task accepts no other metric names
        self.val_metrics, self.test_metrics = task.val_metrics, task.test_metrics
        self.mean_losses = task.mean_losses
        self.task = task
        self.augmentation: nn.Module | Group = AugTransforms() if augmentation is None else augmentation
        self.n, self.beta, self.reduce = n, beta, reduce

    @property
    def class_names(self) -> list[str] | None:
        """Names of the task's classes, or None if it has none."""
        return getattr(self.task, "class_names", None)

    @property
    def multilabel(self) -> bool:
        """Whether an image can have any number of the task's classes."""
        return bool(getattr(self.task, "multilabel", False))

    @property
    def ignore_index(self) -> int | None:
        """Target value that the task ignores, or None if there is none."""
        return getattr(self.task, "ignore_index", None)

    def setup(self, stage: str) -> None:
        self.task.setup(stage)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns the combined predictions, of the same shape as the task's."""
        return self._combine(inputs, self._predict(inputs))

    def on_validation_epoch_start(self) -> None:
        self.task.on_validation_epoch_start()

    def on_test_epoch_start(self) -> None:
        self.task.on_test_epoch_start()

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.task.on_validation_batch_start(batch, batch_idx, dataloader_idx)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.task.on_test_batch_start(batch, batch_idx, dataloader_idx)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.task.on_predict_batch_start(batch, batch_idx, dataloader_idx)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx, "val", self.val_metrics)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx, "test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.task.class_scores("val"), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.task.class_scores("test"), sync_dist=True)

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        inputs = [batch] if isinstance(batch, Tensor) else batch[: self.task.num_inputs]
        combined: Tensor = self(*inputs)
        return combined

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapts a checkpoint of the task to this module."""
        self.task.on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] = {f"task.{name}": value for name, value in checkpoint["state_dict"].items()}

    def _evaluate(
        self, batch: Sequence[Tensor], batch_idx: int, stage: Stage, metrics: MetricCollection
    ) -> dict[str, Tensor]:
        outputs, target = self.task.outputs_and_target(batch)
        self.task.check_batch(outputs, target, batch_idx)
        predictions = self._combine(batch[: self.task.num_inputs], self.task.activation(outputs))
        return log_evaluation(self, self.task, stage, metrics, outputs, predictions, target)

    def _predict(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.task.predict(*inputs)

    def _combine(self, inputs: Sequence[Tensor], plain: Tensor) -> Tensor:
        for images in inputs:
            if images.ndim != 4 or not images.is_floating_point():
                raise ValueError(f"Expected float images (b, c, h, w), but got {images.dtype} of {tuple(images.shape)}")
        if isinstance(self.augmentation, str):
            square = all(images.shape[-1] == images.shape[-2] for images in inputs)
            elements = [(turns, flip) for turns, flip in _ELEMENTS[self.augmentation] if square or turns % 2 == 0]
            elements = elements[: self.n]
            passes, count = self._turned(inputs, elements), len(elements)
        elif plain.ndim > 2:
            raise ValueError(
                f"Expected `augmentation` to be {' or '.join(_ELEMENTS)} for predictions of {tuple(plain.shape)}, as "
                f"maps have to be transformed back, but got {type(self.augmentation).__name__}"
            )
        else:
            count = 4 if self.n is None else self.n
            passes = self._augmented(inputs, self.augmentation, count)
        if self.reduce == "max":
            return functools.reduce(torch.maximum, passes, plain)
        return torch.lerp(functools.reduce(torch.add, passes) / count, plain, self.beta)

    def _augmented(self, inputs: Sequence[Tensor], augmentation: nn.Module, count: int) -> Iterator[Tensor]:
        for _ in range(count):
            yield self._predict([torch.stack([augmentation(image) for image in images]) for images in inputs])

    def _turned(self, inputs: Sequence[Tensor], elements: list[tuple[int, bool]]) -> Iterator[Tensor]:
        for turns, flip in elements:
            predictions = self._predict([dihedral(images, turns, flip) for images in inputs])
            yield dihedral(predictions, turns, flip, inverse=True) if predictions.ndim > 2 else predictions
