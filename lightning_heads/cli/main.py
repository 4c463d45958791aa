"""The command line: `lightning-heads fit --config x.yaml`."""

import json
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from ..optim.freezing import NormPolicy
from ..utils.arguments import init_parameters

# Arguments of a model that are linked to an attribute of the data module.
_FROM_DATA = {
    "num_classes": "num_classes",
    "num_outputs": "num_classes",
    "class_names": "class_names",
    "in_channels": "in_channels",
}


class _Trainer(Trainer):
    """`Trainer` with the learning rate finder as a subcommand."""

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
            model: Task to find a learning rate for.
            datamodule: Its training data.
            min_lr: Learning rate at the first step.
            max_lr: Learning rate that the step after the last would have.
            num_steps: Number of optimizer steps.
            train_from: First parameter group that trains; by default that of the schedule's first phase.
            norm: Mode of normalization layers in frozen groups if `train_from` is given; see `freeze_to`.
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


setattr(_Trainer, "lr-find", _Trainer.lr_find)  # LightningCLI calls the method of the subcommand's name


def main(args: Sequence[str] | None = None) -> Any:
    """Runs a command and returns the `LightningCLI`.

    The commands are `fit`, `validate`, `test`, `predict` and `lr-find`; and `embed` and `nearest`, which search for
    similar images without a trainer and return None.

    Classes may be named without their module (`ImageClassifier`, `OneCycle`). The number and names of the classes and
    the channels of the images are taken from the data module. `predict` writes predictions to the folder of the logs:
    to a csv file, or, for segmentation and restoration, to png files.

    Raises:
        ValueError: If the configuration gives other classes than the data module has.
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
            given = {} if model is None else _linked_arguments(model)
            super().instantiate_classes()
            for argument, value in given.items():
                known = getattr(self.datamodule, _FROM_DATA[argument], value)
                if value != known:
                    raise ValueError(f"Expected `{argument}` to be {known}, as the data has it, but got {value}")

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer: Any = super().instantiate_trainer(**kwargs)
            kinds = {lh.ImageSegmenter: "masks", lh.ImageRestorer: "images"}
            used = next((name for kind, name in kinds.items() if isinstance(self.model, kind)), "predictions")
            config = self.config_init[self.subcommand]
            unused = [config[name] for name in writers if name != used]
            trainer.callbacks[:] = [each for each in trainer.callbacks if each not in unused]
            return trainer  # type: ignore[no-any-return]

        def before_predict(self) -> None:
            # predictions are written to files; a list of all of them could fill the memory
            self.config_init["predict"]["return_predictions"] = False

    with warnings.catch_warnings():
        # a script may have command line arguments of its own
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
            # a misspelled option must not be taken for an abbreviation
            parser_kwargs={
                "allow_abbrev": False,
                "epilog": "Without a trainer: embed, nearest, which search for similar images.",
                **{name: {"allow_abbrev": False} for name in HeadsCLI.subcommands()},
            },
            args=None if args is None else given,
        )


def _linked_arguments(model: Any) -> dict[str, Any]:
    """Returns the linked arguments that the configuration sets, and drops those that the model's class lacks.

    Lightning adds every linked argument when it reads a checkpoint's hyperparameters.
    """
    module, _, name = model.class_path.rpartition(".")
    takes = init_parameters(getattr(import_module(module), name))
    given = {}
    for argument in _FROM_DATA:
        value = model.init_args.get(argument)
        if argument not in takes:
            model.init_args.pop(argument, None)
            model.get("dict_kwargs", {}).pop(argument, None)
        elif value is not None and value != takes[argument].default:
            given[argument] = value
    return given
