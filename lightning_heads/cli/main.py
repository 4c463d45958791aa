"""The command line: `lightning-heads fit --config x.yaml`."""

import inspect
import json
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from ..optim.freezing import NormPolicy

# What the data knows, by attribute, and the model's arguments that take it.
_FROM_DATA = {
    "num_classes": "num_classes",
    "num_outputs": "num_classes",
    "class_names": "class_names",
    "in_channels": "in_channels",
}


class _Trainer(Trainer):
    """The trainer, with the search for a learning rate as a subcommand."""

    def lr_find(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        min_lr: float = 1e-7,
        max_lr: float = 10.0,
        num_steps: int = 100,
        train_from: int | None = None,
        norm: NormPolicy = "train",
    ) -> None:
        """Suggests a learning rate, prints it and writes the curve to `lr_find.png` and `lr_find.json`.

        Args:
            model: What would be fitted.
            datamodule: Data to fit it to.
            min_lr: Learning rate at the first step.
            max_lr: Learning rate that a step after the last would have.
            num_steps: Optimizer steps.
            train_from: First parameter group that trains; by default as in the first phase of the schedule.
            norm: What normalization layers of the frozen groups do, where `train_from` is given.
        """
        from ..lr_finder.search import lr_find

        curve = lr_find(
            self,
            model,
            datamodule,
            min_lr=min_lr,
            max_lr=max_lr,
            num_steps=num_steps,
            train_from=train_from,
            norm=norm,
        )
        folder = Path(self.default_root_dir)
        if not self.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            suggestions = curve.suggestions()
            for name, lr in suggestions.items():
                print(f"{name:8} {lr:.1e}" + (f"  (--model.init_args.lr {lr:.1e})" if name == "valley" else ""))
            written = {"lrs": curve.lrs, "losses": curve.losses, "suggestions": suggestions}
            (folder / "lr_find.json").write_text(json.dumps(written))
        finally:
            curve.plot(folder / "lr_find.png")
            print(f"Wrote {(folder / 'lr_find.png').resolve()}")


setattr(_Trainer, "lr-find", _Trainer.lr_find)  # a subcommand goes by the name of a method


def main(args: Sequence[str] | None = None) -> Any:
    """Runs `fit`, `validate`, `test`, `predict` or `lr-find` with what a yaml says, and returns the `LightningCLI`.

    Or runs `embed` or `nearest`, the search for images that look alike, which need no trainer and return None.

    Classes go by their short names (`ImageClassifier`, `OneCycle`). What the data knows, the number and names of its
    classes and the channels of its images, reaches the model by itself. Predictions are written beside the logs: to a
    csv file, or, of a segmentation or a restoration, to png files.

    Raises:
        ValueError: If a yaml says something else of the classes than the data.
    """
    from jsonargparse import auto_cli
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    import lightning_heads as lh

    from .search import embed_command, nearest_command

    search: Any = {"embed": embed_command, "nearest": nearest_command}
    given = [*(sys.argv[1:] if args is None else args)]
    if given and given[0] in search:
        return auto_cli(search, given, as_positional=False, allow_abbrev=False)
    writers = {"predictions": lh.PredictionWriter, "masks": lh.MaskWriter, "images": lh.ImageWriter}

    class HeadsCLI(LightningCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {**LightningCLI.subcommands(), "lr-find": {"model", "datamodule"}}

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            for name, writer in writers.items():
                parser.add_lightning_class_args(writer, name)
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

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer: Any = super().instantiate_trainer(**kwargs)
            kinds = {lh.ImageSegmenter: "masks", lh.ImageRestorer: "images"}
            fitting = next((name for kind, name in kinds.items() if isinstance(self.model, kind)), "predictions")
            given = self.config_init[self.subcommand]
            unfit = [given[name] for name in writers if name != fitting]
            trainer.callbacks[:] = [each for each in trainer.callbacks if each not in unfit]
            return trainer  # type: ignore[no-any-return]

        def before_predict(self) -> None:
            # all that was predicted would be kept, where the files are what is wanted
            self.config_init["predict"]["return_predictions"] = False

    with warnings.catch_warnings():
        # a script with arguments of its own may well call this with others
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        return HeadsCLI(
            LightningModule,
            LightningDataModule,
            trainer_class=_Trainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=42,
            # else a misspelt key passes for the abbreviation of another
            parser_kwargs={
                "allow_abbrev": False,
                "epilog": "And without a trainer: embed, nearest, the search for images that look alike.",
                **{name: {"allow_abbrev": False} for name in HeadsCLI.subcommands()},
            },
            args=None if args is None else given,
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
