"""LightningCLI for this package's tasks and data modules."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_heads as lh

from ..tasks.checkpoint import Checkpoint, check_class, equal, hyperparameters, read_checkpoint, unfit_hyperparameters
from ..utils.arguments import init_parameters
from .checkpoint import CheckpointRequired, NewLearningRate, missing_hyperparameters, untrained_error
from .parser import HeadsParser

# Arguments of a model that are linked to an attribute of the data module.
_FROM_DATA = {
    "num_classes": "num_classes",
    "num_outputs": "num_classes",
    "class_names": "class_names",
    "in_channels": "in_channels",
}
# This also imports all public classes: only classes that are imported can be named without their module.
_WRITERS = {"predictions": lh.PredictionWriter, "masks": lh.MaskWriter, "images": lh.ImageWriter}


class HeadsCLI(LightningCLI):
    """Runs a command with values from the command line, else from yaml files, else from the checkpoint.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the configuration gives other classes than the data module has, a command that evaluates gets no
            checkpoint, or the checkpoint is of another class or model.
    """

    parser: HeadsParser
    config: Any
    checkpoint: Checkpoint

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "lr-find": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, writer in _WRITERS.items():
            parser.add_lightning_class_args(writer, name)
        for argument, source in _FROM_DATA.items():
            parser.link_arguments(f"data.{source}", f"model.init_args.{argument}", apply_on="instantiate")
        if isinstance(parser, HeadsParser) and parser.evaluates:
            text = "Evaluate the model as it is built, without a checkpoint."
            parser.add_argument("--untrained", action=ActionYesNo, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.args = args
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Adds the checkpoint's hyperparameters that the configuration lacks, where Lightning would replace it."""
        self.checkpoint = {}
        command = self.config.subcommand
        config = self.config[command]
        path = config.get("ckpt_path")
        if not path and config.get("untrained") is False:
            raise untrained_error(command)
        if not path or _is_found_by_lightning(str(path)):
            return
        self.checkpoint = read_checkpoint(Path(path), weights_only=config.get("weights_only") is not False)
        task = _class_of(config.model)
        check_class(task, self.checkpoint)
        given = self.parser.parse_args(self.args, defaults=False)[command].model.get("init_args", {})
        # None says that the data decides
        given = {name: value for name, value in given.items() if value is not None or name not in _FROM_DATA}
        missing = missing_hyperparameters(task, given, self.checkpoint)
        model = {"class_path": config.model.class_path, "dict_kwargs": missing}
        self.config = self.parser.parse_object({command: {"model": model}}, self.config)

    def instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        given = _linked_arguments(config.model)
        self.parser.add_instantiator(_instantiate, Callback)
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise self.parser.constructor_error or error from None
        for argument, value in given.items():
            known = getattr(self.datamodule, _FROM_DATA[argument], value)
            if value != known:
                is_saved = equal(hyperparameters(self.checkpoint).get(argument), value)
                source = f"{config.ckpt_path} has" if is_saved else "got"
                raise ValueError(f"Expected `{argument}` to be {known}, as the data has it, but {source} {value}")
        if self.checkpoint:
            self._check_weights(config.ckpt_path)

    def _check_weights(self, path: str) -> None:
        if unfit := unfit_hyperparameters(self.model, self.checkpoint):
            changes = ", ".join(f"`{name}` from {old!r} to {new!r}" for name, (new, old) in unfit.items())
            raise ValueError(
                f"Expected the model of {path}, whose weights do not fit another, but got one that changes {changes}"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer: Any = super().instantiate_trainer(**kwargs)
        kinds = {lh.ImageSegmenter: "masks", lh.ImageRestorer: "images"}
        used = next((name for kind, name in kinds.items() if isinstance(self.model, kind)), "predictions")
        config = self.config_init[self.subcommand]
        unused = [config[name] for name in _WRITERS if name != used]
        trainer.callbacks[:] = [each for each in trainer.callbacks if each not in unused]
        if config.get("untrained") is False:
            trainer.callbacks.insert(0, CheckpointRequired())  # before others create files
        saved = hyperparameters(self.checkpoint)
        if self.subcommand == "fit" and "lr" in saved and not equal(self.model.hparams.get("lr"), saved["lr"]):
            trainer.callbacks.append(NewLearningRate())
        return trainer  # type: ignore[no-any-return]

    def before_predict(self) -> None:
        # predictions are written to files; a list of all of them could fill the memory
        self.config_init["predict"]["return_predictions"] = False


def _is_found_by_lightning(path: str) -> bool:
    """Returns whether a checkpoint is not a file here, but for example `last`, a folder of shards or a URL."""
    return path in ("best", "last", "hpc") or path.startswith("registry") or "://" in path or Path(path).is_dir()


def _instantiate(class_type: type, *args: Any, **kwargs: Any) -> Any:
    return class_type(*args, **kwargs)


def _class_of(model: Any) -> type:
    module, _, name = model.class_path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


def _linked_arguments(model: Any) -> Mapping[str, Any]:
    """Returns the linked arguments that the configuration sets, and drops those that the model's class lacks.

    Lightning adds every linked argument to the hyperparameters of a checkpoint.
    """
    takes = init_parameters(_class_of(model))
    given = {}
    for argument in _FROM_DATA:
        value = model.init_args.get(argument)
        if argument not in takes:
            model.init_args.pop(argument, None)
            model.get("dict_kwargs", {}).pop(argument, None)
        elif value is not None and value != takes[argument].default:
            given[argument] = value
    return given
