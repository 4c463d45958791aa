"""The command line: `lightning-heads fit --config x.yaml`."""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from ..optim.freezing import NormPolicy
from .commands import EVALUATIONS

PROGRAM = "lightning-heads"


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

    Values come from the command line, else from yaml files, else from the hyperparameters of the checkpoint. Classes
    may be named without their module (`ImageClassifier`, `OneCycle`). The number and names of the classes and the
    channels of the images are taken from the data module. `validate`, `test` and `predict` need a checkpoint, unless
    `--untrained` is given. `predict` writes predictions to the folder of the logs: to a csv file, or, for segmentation
    and restoration, to png files.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the configuration gives other classes than the data module has, a command that evaluates gets no
            checkpoint, or the checkpoint is of another class or model.
    """
    from jsonargparse import auto_cli

    from .heads_cli import HeadsCLI
    from .parser import HeadsParser
    from .search import embed_command, nearest_command

    search: Any = {"embed": embed_command, "nearest": nearest_command}
    given = [*(sys.argv[1:] if args is None else args)]
    # a misspelled option must not be taken for an abbreviation
    options: Any = {"allow_abbrev": False}
    if given and given[0] in search:
        options |= {"prog": PROGRAM, "description": "Searches for similar images."}
        return auto_cli(search, given, as_positional=False, parser_class=HeadsParser, **options)
    with warnings.catch_warnings():
        # a script may have command line arguments of its own
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        return HeadsCLI(
            LightningModule,
            LightningDataModule,
            trainer_class=_Trainer,
            parser_class=HeadsParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=42,
            parser_kwargs={
                "prog": PROGRAM,
                "epilog": "Without a trainer: embed, nearest, which search for similar images.",
                **options,
                **{name: {"evaluates": name in EVALUATIONS, **options} for name in HeadsCLI.subcommands()},
            },
            args=None if args is None else given,
        )
