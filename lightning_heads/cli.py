"""The command line: `lightning-heads fit --config x.yaml`."""

import inspect
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

# What the data knows, by attribute, and the model's arguments that take it.
_FROM_DATA = {"num_classes": "num_classes", "num_outputs": "num_classes", "class_names": "class_names"}


def main(args: Sequence[str] | None = None) -> Any:
    """Runs `fit`, `validate`, `test` or `predict` with what a yaml says, and returns the `LightningCLI`.

    Classes go by their short names (`ImageClassifier`, `OneCycle`). What the data knows, the number and names of its
    classes, reaches the model by itself. Predictions are written to a csv file beside the logs.

    Raises:
        ValueError: If a yaml says something else of the classes than the data.
    """
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    import lightning_heads as lh

    class HeadsCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(lh.PredictionWriter, "predictions")
            for argument, source in _FROM_DATA.items():
                parser.link_arguments(f"data.{source}", f"model.init_args.{argument}", apply_on="instantiate")

        def instantiate_classes(self) -> None:
            model = self.config[self.subcommand].get("model")
            given = {} if model is None else _given(model)
            super().instantiate_classes()
            for argument, value in given.items():
                known = getattr(self.datamodule, _FROM_DATA[argument], value)
                if value != known:
                    raise ValueError(f"Expected `{argument}` to be {known}, as the data has it, but got {value}")

    commands = ("fit", "validate", "test", "predict")
    with warnings.catch_warnings():
        # a script with arguments of its own may well call this with others
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        return HeadsCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=42,
            # else a misspelt key passes for the abbreviation of another
            parser_kwargs={"allow_abbrev": False, **{command: {"allow_abbrev": False} for command in commands}},
            args=None if args is None else [*args],
        )


def _given(model: Any) -> dict[str, Any]:
    """Returns what the configuration says of the classes, and drops what the model's class does not take.

    Reading a checkpoint's hyperparameters adds every linked argument, whether the class has it or not.
    """
    module, _, name = model.class_path.rpartition(".")
    takes = inspect.signature(getattr(import_module(module), name)).parameters
    given = {}
    for argument in _FROM_DATA:
        value = model.init_args.get(argument)
        if argument not in takes:
            model.init_args.pop(argument, None)
            model.get("dict_kwargs", {}).pop(argument, None)
        elif value is not None and value != takes[argument].default:
            given[argument] = value
    return given
