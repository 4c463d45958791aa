"""LightningModule that is the base class of all tasks."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Literal, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from ..callbacks import ExactResume
from ..callbacks.best_checkpoint import log_best_checkpoint
from ..encoders.encoder import check_images
from ..encoders.timm.model import standalone_name
from ..losses.terms import loss_terms
from ..metrics import MeanLoss
from ..optim.param_groups import LearningRate, Splitter, optimizer_groups, param_groups
from ..utils.arguments import init_parameters
from ..utils.modules import uncompiled_name
from ..utils.plain import plain_values
from .checkpoint import check_class, class_path
from .hyperparameters import Hyperparameter

Stage = Literal["train", "val", "test"]

# jsonargparse tries the members of a union in order: a number must come before a sequence
LR = float | list[float | None] | tuple[float | None, ...]

# Hyperparameters that are saved with these values, as a loaded checkpoint has the weights that they would read.
RESET_ON_LOAD: dict[str, Any] = {
    "pretrained": False,
    "weights": None,
    "feature_pretrained": False,
    "feature_weights": None,
    "style_image": None,
}


# Arguments that are functions, which a checkpoint that loads with `weights_only=True` cannot hold.
_NOT_SAVED = ("optimizer", "lr_scheduler", "splitter")


class TransferModule(L.LightningModule):
    """Trains any model on batches of the model's inputs followed by the target.

    Images, the inputs of a model whose `encoder` is an `Encoder`, are floats in about 0..1, which is checked in the
    first batch of each data loader. A subclass may override `activation`, `configure_optimizers`, `check_first_batch`
    or a step.

    Args:
        model: Model that maps inputs to outputs. Its attribute `num_inputs` is their number, 1 by default; its method
            `param_groups()` returns groups of parameters that share a learning rate.
        criterion: Loss of outputs and target. In evaluation, its mean over batches is weighted by their numbers of
            samples; for torch's cross-entropy, by the class weights of the targets that are not ignored; or by what a
            method `batch_weight(outputs, target)` of the criterion returns.
        metrics: Metrics of predictions (activated outputs) and target, by the name they are logged under.
        lr: Learning rate: a number, a pair that is spaced geometrically from the first parameter group to the last,
            `(None, b)` for b in the last group and b / 10 in the others, or one number per group. The attribute `lr`
            can be set later, too; checkpoints have its last value.
        optimizer: Function that creates the optimizer from parameter groups; by default AdamW with fastai's constants
            (betas 0.9 and 0.99, eps 1e-5, decoupled weight decay 0.01).
        lr_scheduler: Function that creates a learning rate scheduler from the optimizer, stepped once per epoch.
            Schedules over steps are callbacks.
        splitter: Function from the model to its parameter groups, in place of `model.param_groups()`; fastai's
            `splitter`.
    """

    lr = Hyperparameter[LearningRate]()
    takes_features = False  # whether batches have features in place of inputs; set by `FeatureCache`
    _standalone_names: Mapping[str, str] = {}  # of the encoders that the hyperparameters name by an address

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
        self._checked_loaders: set[tuple[bool, int]] = set()
        self.model = model
        self.criterion = criterion
        # a metric may have a network of its own, which does not train
        collection = MetricCollection({**(metrics or {})}).requires_grad_(False)
        self.val_metrics = collection.clone(prefix="val_")
        self.test_metrics = collection.clone(prefix="test_")
        self.mean_losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})
        self.lr = lr
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._splitter = splitter

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Saves the constructor's arguments as Lightning does, except `optimizer`, `lr_scheduler` and `splitter`.

        Values are converted to plain ones, which load with `weights_only=True`; see `plain_values`. `LightningCLI` adds
        arguments that it links from the data module. Those that the class lacks are dropped, since a constructor with
        `**kwargs` would get them when a checkpoint is loaded.
        """
        ignored = [ignore] if isinstance(ignore, str) else [*(ignore or ())]
        frame = frame or cast(FrameType, cast(FrameType, inspect.currentframe()).f_back)
        super().save_hyperparameters(*args, ignore=[*_NOT_SAVED, *ignored], frame=frame, logger=logger)
        if not args:
            taken = init_parameters(type(self))
            self.remove_ignored_hparams([name for name in self.hparams if name[:1] != "_" and name not in taken])
        self.hparams.update(plain_values({**self.hparams}))
        self._hparams_initial = copy.deepcopy(self.hparams)
        names = [value for value in self.hparams.values() if isinstance(value, str)]
        self._standalone_names = {name: standalone_name(name) for name in names}

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        run: Any = self.model.from_features if self.takes_features else self.model
        out: Tensor = run(x, *others)
        return out

    def activation(self, outputs: Tensor) -> Tensor:
        """Converts the model's outputs to predictions; by default they are returned unchanged."""
        return outputs

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raises ValueError if the target does not fit the outputs; by default the criterion does that."""

    def check_batch(self, outputs: Tensor, target: Tensor, batch_idx: int) -> None:
        """Checks the target; on an accelerator only in an epoch's first batch, as the check waits for the device."""
        if batch_idx == 0 or target.device.type == "cpu":
            self.check_target(outputs, target)

    def check_first_batch(self, batch: Any) -> None:
        """Raises ValueError if images in a loader's first batch are not in about 0..1, or are integers.

        Images are the inputs of a model with an `Encoder`; see `Encoder.check_range`.
        """
        inputs = [batch] if isinstance(batch, Tensor) else batch if isinstance(batch, (list, tuple)) else []
        check_images(self.model, *inputs[: self.num_inputs])

    def on_fit_start(self) -> None:
        self._checked_loaders = set()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._check_if_first(batch, batch_idx, 0)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._check_if_first(batch, batch_idx, dataloader_idx)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._check_if_first(batch, batch_idx, dataloader_idx)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._check_if_first(batch, batch_idx, dataloader_idx)

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

    def on_validation_epoch_start(self) -> None:
        self._reset("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self._reset("test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.class_scores("val"), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.class_scores("test"), sync_dist=True)

    def on_fit_end(self) -> None:
        log_best_checkpoint(self.trainer)

    def class_scores(self, stage: Stage) -> dict[str, Tensor]:
        """Returns scores of single classes, by the name they are logged under, at the end of an evaluation."""
        return {}

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        inputs = [batch] if isinstance(batch, Tensor) else batch[: self.num_inputs]
        return self.predict(*inputs)

    def predict(self, *inputs: Tensor) -> Tensor:
        """Returns the predictions for inputs, which may be larger than in training."""
        return self.activation(self(*inputs))

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the model's parameter groups; the last, the head's, has the criterion's trainable parameters too."""
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
        checkpoint["class_path"] = class_path(type(self))
        for key in (self.CHECKPOINT_HYPER_PARAMS_KEY, L.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY):
            if key in checkpoint:
                checkpoint[key] = plain_values(checkpoint[key])  # some may have been set after `save_hyperparameters`
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY)
        if saved is not None:
            names = self._standalone_names
            saved.update({key: names.get(value, value) for key, value in saved.items() if isinstance(value, str)})
            saved.update({key: value for key, value in RESET_ON_LOAD.items() if key in saved})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapts the names of weights, where modules within the task are compiled that were not when it was saved.

        Raises:
            ValueError: If the checkpoint is of another class.
        """
        check_class(type(self), checkpoint)
        own = {uncompiled_name(name): name for name in self.state_dict()}
        weights = checkpoint.get("state_dict", {})  # absent if it is sharded
        for name in [*weights]:
            weights[own.get(uncompiled_name(name), name)] = weights.pop(name)

    @property
    def num_inputs(self) -> int:
        """Number of inputs that the model takes from a batch."""
        return int(getattr(self.model, "num_inputs", 1))

    def outputs_and_target(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Runs the model on a batch's inputs, and returns its outputs and the target.

        Raises:
            ValueError: If there is no target.
        """
        if isinstance(batch, Tensor) or len(batch) <= self.num_inputs:
            raise ValueError(f"Expected a batch of {self.num_inputs} inputs, then the target, but there is no target")
        return self(*batch[: self.num_inputs]), batch[self.num_inputs]

    def _check_if_first(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Checks the images of the first batch of each loader in a run, and no others, as that waits for the device."""
        loader = (self.trainer.training, dataloader_idx)
        fits = self.trainer.state.fn == TrainerFn.FITTING
        if not self.takes_features and (loader not in self._checked_loaders if fits else batch_idx == 0):
            self.check_first_batch(batch)
            self._checked_loaders.add(loader)

    def _reset(self, stage: Stage, metrics: MetricCollection) -> None:
        """Drops what an evaluation left in the metrics that ended by an exception."""
        metrics.reset()
        cast(MeanLoss, self.mean_losses[stage]).reset()

    def _evaluate(
        self, batch: Sequence[Tensor], batch_idx: int, stage: Stage, metrics: MetricCollection
    ) -> dict[str, Tensor]:
        outputs, target = self.outputs_and_target(batch)
        self.check_batch(outputs, target, batch_idx)
        return log_evaluation(self, self, stage, metrics, outputs, self.activation(outputs), target)

    def metric_target(self, target: Tensor) -> Tensor:
        """Converts the target of the criterion to that of the metrics; by default they are the same."""
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
    """Logs the loss of outputs and the metrics of predictions, and returns the outputs of a step for callbacks.

    Args:
        module: The LightningModule that is evaluated.
        task: The task with the loss, often the module itself.
        stage: Prefix of the names of logged values.
        metrics: Metrics of the module.
        outputs: Outputs of the task's model.
        predictions: Activated outputs, or a combination of those of several views.
        target: Target of the batch.
    """
    losses, weights = loss_terms(task.criterion, outputs, target)
    mean = cast(MeanLoss, task.mean_losses[stage])
    mean.update(losses, weights)
    module.log(f"{stage}_loss", mean, batch_size=len(target), prog_bar=True)
    metrics.update(predictions, task.metric_target(target))
    module.log_dict(metrics, batch_size=len(target), prog_bar=True)
    return {"loss": losses.sum().detach(), "predictions": predictions.detach(), "target": target}
