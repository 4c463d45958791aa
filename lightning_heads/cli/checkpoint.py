"""What the command line takes from a checkpoint, and what it does not."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..optim.param_groups import base_rates, gather_groups, set_lr
from ..tasks.base import RESET_ON_LOAD
from ..tasks.checkpoint import Checkpoint, class_path, hyperparameters, saved_class_path
from ..utils.arguments import init_parameters


def untrained_error(command: str) -> ValueError:
    """Returns the error that a command has no checkpoint to evaluate."""
    return ValueError(
        f"Expected `--ckpt_path` with the checkpoint to {command}, since the model is not trained, but got none; pass "
        "`--untrained` if that is meant"
    )


def missing_hyperparameters(task: type, given: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the hyperparameters of a checkpoint that the configuration does not give.

    Where its weights come from is always the checkpoint's, whose weights are loaded in any case.

    Args:
        task: Class of the task.
        given: Arguments of the task on the command line and in yaml files.
        checkpoint: Checkpoint of a task.
    """
    same = saved_class_path(checkpoint) == class_path(task)
    return {
        name: value
        for name, value in hyperparameters(checkpoint).items()
        if (name not in given or name in RESET_ON_LOAD) and (same or name in init_parameters(task))
    }


class CheckpointRequired(Callback):
    """Raises ValueError if no checkpoint was loaded, as with `last` where there is none."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _check_loaded(trainer, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _check_loaded(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _check_loaded(trainer, "predict")


def _check_loaded(trainer: Trainer, command: str) -> None:
    if trainer.ckpt_path is None:
        raise untrained_error(command)


class NewLearningRate(Callback):
    """Resumes with the learning rates of the task, in place of those in the checkpoint's optimizer state.

    Raises:
        ValueError: If a learning rate scheduler continues from the checkpoint's.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.lr_scheduler_configs:
            raise ValueError(
                "Expected the learning rate of the checkpoint, whose `lr_scheduler` continues, but got another one"
            )
        self.rates = [base_rates(gather_groups(optimizer)) for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, rates in zip(trainer.optimizers, self.rates, strict=True):
            for members, rate in zip(gather_groups(optimizer), rates, strict=True):
                for group in members:
                    set_lr(group, rate)
                    group["initial_lr"] = rate
