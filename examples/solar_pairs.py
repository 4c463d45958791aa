"""Classifies pairs of solar cells as same or different with the recipe of fastai's book, then finds similar cells.

The class of a cell is its type, monocrystalline or polycrystalline, together with whether it is defective. The
photographs are those of `elpv-dataset` (Deitsch 2019, Solar Energy 185; CC BY-NC-SA 4.0), the encoder is an
EfficientNet-Lite0 with ImageNet weights.
"""

import argparse
import csv
from pathlib import Path

import lightning as L
from common import ENCODER, prepare_weights
from solar_cells import prepare_table

import lightning_heads as lh

FOLDER = Path("demo/solar_pairs")


def prepare_kinds(folder: Path) -> Path:
    """Writes a table of the cells and their classes to `folder/kinds.csv`, and returns its path."""
    prepare_table(folder)
    with (folder / "cells.csv").open() as cells, (folder / "kinds.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "kind"])
        for row in csv.DictReader(cells):
            condition = "defective" if float(row["defective"]) > 0.5 else "functional"
            writer.writerow([row["path"], f"{row['type']} {condition}"])
    return folder / "kinds.csv"


def main() -> None:
    """Trains, draws the nearest neighbors of some held-out cells, and prints the scores on fixed held-out pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, pairs, head and batch order")
    options = parser.parse_args()

    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_weights(FOLDER)
    L.seed_everything(options.seed, verbose=False)
    data = lh.PairTableData(
        prepare_kinds(FOLDER),
        label="kind",
        valid_fraction=0.25,
        seed=options.seed,
        image_size=options.size,
        batch_size=32,
        num_workers=2,
        resize="squish",
        augment=False,
    )
    weights = FOLDER / f"{ENCODER}.safetensors"
    task = lh.PairClassifier(ENCODER, weights=weights, comparison="concatenation", lr=3e-3)
    recipe = lh.Phases([lh.Phase(4, train_from=-1), lh.Phase(4, lr=(1e-6, 1e-4))])
    trainer = L.Trainer(max_epochs=8, callbacks=[recipe], default_root_dir=FOLDER, logger=False, devices=1)
    trainer.fit(task, data)
    scores = trainer.validate(task, data, verbose=False)[0]

    held_out = data.samples["valid"].paths
    index = lh.embed(task, held_out[0].parent, image_size=options.size, resize="squish", batch_size=32)
    found = [lh.look_alikes(index, path, 6, model=task)[0] for path in held_out[:: len(held_out) // 5]]
    sheet = FOLDER / "look_alikes.png"
    lh.draw_look_alikes(found).save(sheet)
    print(f"The look-alikes of some cells are in {sheet.resolve()}")
    print("  ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
