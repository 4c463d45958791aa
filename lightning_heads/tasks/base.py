"""The one LightningModule that holds the behavior of every task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from ..callbacks import ExactResume
from ..optim.param_groups import LearningRate, Splitter, optimizer_groups, param_groups

Stage = Literal["train", "val", "test"]

# jsonargparse tries the members of a union in order: a number must come before a sequence
LR = float | list[float | None] | tuple[float | None, ...]

# What a checkpoint must not repeat when it is loaded: its own weights replace the pretrained ones.
_RESET_ON_LOAD: dict[str, Any] = {
    "pretrained": False,
    "weights": None,
    "feature_pretrained": False,
    "feature_weights": None,
    "style_image": None,
}


class TransferModule(L.LightningModule):
    """Trains any model whose batch is the model's inputs, then the target.

    Subclass it and override what you want to be otherwise: `activation`, `configure_optimizers` or a step.

    Args:
        model: Maps its inputs to outputs. `model.num_inputs` says how many inputs it takes, 1 by default, and
            `model.param_groups()` which parameters share a learning rate.
        criterion: Loss of outputs and target.
        metrics: Metrics of activated outputs and target, by the name they are logged under.
        lr: Learning rate: a number, a pair that goes geometrically from the first group to the last, `(None, b)` for b
            in the last group and a tenth of it in all others, or one a group.
        optimizer: Makes the optimizer from parameter groups; by default AdamW with fastai's constants
            (betas 0.9 and 0.99, eps 1e-5, decoupled weight decay 0.01).
        lr_scheduler: Makes a scheduler from the optimizer, stepped once an epoch. Schedules over steps are callbacks.
        splitter: Maps the model to its parameter groups, in place of `model.param_groups()`; fastai's `splitter`.
    """

    takes_features = False  # in place of inputs, which `FeatureCache` sets

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        metrics: Mapping[str, Metric] | None = None,
        *,
        lr: LearningRate = 1e-3,
        optimizer: Callable[[Any], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        splitter: Splitter | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        # a metric may have a network of its own, which does not train
        collection = MetricCollection({**(metrics or {})}).requires_grad_(False)
        self.val_metrics = collection.clone(prefix="val_")
        self.test_metrics = collection.clone(prefix="test_")
        self.lr = lr
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._splitter = splitter

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.model.from_features(*inputs) if self.takes_features else self.model(*inputs)  # type: ignore[operator]
        return out

    def activation(self, outputs: Tensor) -> Tensor:
        """Turns the model's outputs into predictions; here they are predictions already."""
        return outputs

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Refuses targets that do not fit; here the criterion does."""

    def check_batch(self, outputs: Tensor, target: Tensor, batch_idx: int) -> None:
        """Checks the target of every batch on the CPU, and of an epoch's first elsewhere, where looking would wait."""
        if batch_idx == 0 or target.device.type == "cpu":
            self.check_target(outputs, target)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        outputs, target = self.outputs_and_target(batch)
        self.check_batch(outputs, target, batch_idx)
        loss: Tensor = self.criterion(outputs, target)
        self.log("train_loss", loss, batch_size=len(target), prog_bar=True)
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx, "val", self.val_metrics)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx, "test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.class_scores("val"), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.class_scores("test"), sync_dist=True)

    def class_scores(self, stage: Stage) -> dict[str, Tensor]:
        """Returns scores of single classes, by the name they are logged under, at the end of an evaluation."""
        return {}

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int) -> Tensor:
        inputs = [batch] if isinstance(batch, Tensor) else batch[: self.num_inputs]
        return self.predict(*inputs)

    def predict(self, *inputs: Tensor) -> Tensor:
        """Returns activated outputs of inputs as they come to be predicted, which may be larger than in training."""
        return self.activation(self(*inputs))

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the model's parameter groups; what the criterion learns goes with the last, the head."""
        *groups, head = param_groups(self.model, self._splitter)
        return [*groups, [*head, *(p for p in self.criterion.parameters() if p.requires_grad)]]

    def configure_callbacks(self) -> list[L.Callback]:
        given = self._trainer is not None and any(isinstance(c, ExactResume) for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if given else [ExactResume()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = optimizer_groups(self, self.lr)
        optimizer = self._optimizer(groups) if self._optimizer else AdamW(groups, betas=(0.9, 0.99), eps=1e-5)
        return optimizer if self._lr_scheduler is None else ([optimizer], [self._lr_scheduler(optimizer)])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # tells which class to load it with
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY)
        if saved is not None:
            saved.update({key: value for key, value in _RESET_ON_LOAD.items() if key in saved})

    @property
    def num_inputs(self) -> int:
        """How many inputs the model takes from a batch."""
        return int(getattr(self.model, "num_inputs", 1))

    def outputs_and_target(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Runs the model on a batch's inputs.

        Raises:
            ValueError: If there is no target.
        """
        if isinstance(batch, Tensor) or len(batch) <= self.num_inputs:
            raise ValueError(f"Expected a batch of {self.num_inputs} inputs, then the target, but there is no target")
        return self(*batch[: self.num_inputs]), batch[self.num_inputs]

    def _evaluate(
        self, batch: Sequence[Tensor], batch_idx: int, stage: Stage, metrics: MetricCollection
    ) -> dict[str, Tensor]:
        outputs, target = self.outputs_and_target(batch)
        self.check_batch(outputs, target, batch_idx)
        return log_evaluation(self, self, stage, metrics, outputs, self.activation(outputs), target)

    def metric_target(self, target: Tensor) -> Tensor:
        """Turns the criterion's target into the metrics'; here they are one."""
        return target


def log_evaluation(
    module: L.LightningModule,
    task: TransferModule,
    stage: Stage,
    metrics: MetricCollection,
    outputs: Tensor,
    predictions: Tensor,
    target: Tensor,
) -> dict[str, Tensor]:
    """Logs the task's loss of outputs and the metrics of predictions, and returns what callbacks collect.

    Args:
        module: The module that evaluates.
        task: The task that it is of, often itself.
        stage: What the names of the logs begin with.
        metrics: Metrics that the module holds.
        outputs: Outputs of the task's model.
        predictions: Activated outputs, or a combination of several.
        target: Target of the batch.
    """
    loss = task.criterion(outputs, target)
    module.log(f"{stage}_loss", loss, batch_size=len(target), prog_bar=True, sync_dist=True)
    metrics.update(predictions, task.metric_target(target))
    module.log_dict(metrics, batch_size=len(target), prog_bar=True)
    return {"loss": loss.detach(), "predictions": predictions.detach(), "target": target}
