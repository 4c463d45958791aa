"""The command line: `lightning-heads fit --config x.yaml`."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule


def main(args: Sequence[str] | None = None) -> Any:
    """Runs `fit`, `validate`, `test` or `predict` with what a yaml says.

    Classes go by their short names (`ImageClassifier`, `OneCycle`). What the data knows, the number and names of its
    classes, reaches the model by itself. Predictions are written to a csv file beside the logs.
    """
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    import lightning_heads as lh

    class HeadsCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(lh.PredictionWriter, "predictions")
            for target in ("num_classes", "num_outputs"):
                parser.link_arguments("data.num_classes", f"model.init_args.{target}", apply_on="instantiate")
            parser.link_arguments("data.class_names", "model.init_args.class_names", apply_on="instantiate")

    return HeadsCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=42,
        args=None if args is None else [*args],
    )
