"""Composes a segmentation data set from real photographs, with exact masks, and trains a U-Net on it.

An image is a crop of one photograph with shapes and digits drawn on it, each filled with a crop of another photograph
whose mean and contrast are adapted to the pixels that it covers, and with thin curves that are brighter or darker than
the image: neither color nor brightness tells the classes apart. The mask is the geometry that was drawn, without
antialiasing, so it has no labeling errors.

The photographs ship inside scikit-image, scikit-learn and elpv-dataset (Deitsch 2019, Solar Energy 185; CC BY-NC-SA
4.0), so nothing is downloaded. Training crops come from the left part of each photograph and validation crops from the
right part; the two splits share no solar cell.
"""

import argparse
import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

Split = Literal["train", "valid"]
Floats = npt.NDArray[np.floating]
Region = npt.NDArray[np.bool_]

FOLDER = Path("demo/composed_shapes")
CLASSES = ("background", "ellipse", "triangle", "star", "digit", "curve")
PALETTE = (0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66, 213, 94, 0)

# Difficulty of the data set. Lengths are fractions of the image's side, offsets are in standard deviations of the
# background, and a pair is a minimum and a maximum.
SHAPES = (2, 4)  # number of filled shapes per image
CURVES = (1, 2)
RADIUS = (0.14, 0.28)
SHAPE_CONTRAST = 0.6  # contrast inside a shape, relative to the pixels that it covers
SHAPE_OFFSET = (0.8, 1.6)  # difference of a shape's mean from that of the pixels that it covers, in each channel
CURVE_OFFSET = (1.5, 3.0)
CURVE_WIDTH = (1, 2)  # pixels, for any image size
BLUR = 0.5  # maximum radius in pixels
NOISE = 0.02  # maximum standard deviation, where white is 1

PHOTOGRAPHS = (
    *(f"skimage/data/{name}.png" for name in ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass")),
    *(f"skimage/data/{name}" for name in ("gravel.png", "ihc.png", "motorcycle_left.png", "rocket.jpg")),
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
SOLAR_CELLS = 2624
SOLAR_CELL_CHANCE = 0.15
CROP = (100, 200)  # side of a crop in a photograph's pixels, before it is resized to the image
TRAIN_PART = 0.6  # fraction of a photograph's width, and of the solar cells


def compose(seed: int, size: int = 128, split: Split = "train") -> tuple[Tensor, Tensor]:
    """Returns one image, uint8 of `(3, size, size)`, and the class of each pixel, uint8 of `(size, size)`.

    The same seed, size and split give the same image.
    """
    rng = np.random.default_rng([seed, split == "valid"])
    image = _texture(rng, size, split)
    mask = np.zeros((size, size), np.uint8)
    for label in rng.integers(1, CLASSES.index("curve"), rng.integers(*SHAPES, endpoint=True)):
        region = _digit(rng, size) if CLASSES[label] == "digit" else _shape(rng, size, CLASSES[label])
        image[region] = _match_statistics(rng, _texture(rng, size, split)[region], image[region])
        mask[region] = label
    for _ in range(rng.integers(*CURVES, endpoint=True)):
        region = _curve(rng, size)
        image[region] += rng.choice((-1, 1)) * rng.uniform(*CURVE_OFFSET) * _std(image)
        mask[region] = CLASSES.index("curve")
    return torch.from_numpy(_imitate_camera(rng, image)).permute(2, 0, 1).contiguous(), torch.from_numpy(mask)


def write(folder: Path, split: Split, count: int, size: int = 128) -> None:
    """Writes images as `folder/split/images/0000.png` and masks as palette images `folder/split/masks/0000.png`."""
    for kind in ("images", "masks"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        image, mask = compose(seed, size, split)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / split / "images" / f"{seed:04}.png")
        indices = Image.fromarray(mask.numpy(), "L")
        indices.putpalette(PALETTE)
        indices.save(folder / split / "masks" / f"{seed:04}.png")


def _texture(rng: np.random.Generator, size: int, split: Split) -> Floats:
    """Returns the crop of higher contrast among two random ones, as `(size, size, 3)` in 0..1."""
    return max((_crop(rng, size, split) for _ in range(2)), key=lambda crop: float(crop.std()))


def _crop(rng: np.random.Generator, size: int, split: Split) -> Floats:
    """Returns a random crop of a random photograph, rotated by a multiple of 90 degrees and flipped at random."""
    if rng.random() < SOLAR_CELL_CHANCE:
        numbers = _split_range(SOLAR_CELLS, split)
        photograph = _read(f"elpv_dataset/data/images/cell{rng.integers(*numbers) + 1:04}.png")
        left, right = 0, photograph.width
    else:
        photograph = _read(rng.choice(PHOTOGRAPHS))
        left, right = _split_range(photograph.width, split)
    side = min(int(rng.integers(*CROP)), right - left, photograph.height)
    x = int(rng.integers(left, right - side, endpoint=True))
    y = int(rng.integers(0, photograph.height - side, endpoint=True))
    crop = photograph.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BILINEAR)
    rotated = np.rot90(np.asarray(crop, np.float64) / 255, rng.integers(4))
    return np.array(rotated[:, ::-1] if rng.random() < 0.5 else rotated)


def _split_range(length: int, split: Split) -> tuple[int, int]:
    """Returns start and end of the training or the validation part of a length."""
    middle = round(length * TRAIN_PART)
    return (0, middle) if split == "train" else (middle, length)


@cache
def _read(path: str) -> Image.Image:
    """Reads a photograph inside an installed package, without importing the package."""
    package, _, file = path.partition("/")
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"Expected the package `{package}`, which has photographs, to be installed")
    return Image.open(Path(found.origin).parent / file).convert("RGB")


def _match_statistics(rng: np.random.Generator, texture: Floats, covered: Floats) -> Floats:
    """Adapts mean and contrast of pixels `(n, 3)` to the pixels that they cover, channel by channel."""
    gain = SHAPE_CONTRAST * np.clip(covered.std(0) / (texture.std(0) + 1e-6), 0.5, 2)
    offset = rng.choice((-1, 1), 3) * rng.uniform(*SHAPE_OFFSET) * _std(covered)
    return np.asarray((texture - texture.mean(0)) * gain + covered.mean(0) + offset)


def _std(pixels: Floats) -> float:
    """Returns the standard deviation, at least 0.1, so that offsets stay visible on uniform pixels."""
    return max(float(pixels.std()), 0.1)


def _shape(rng: np.random.Generator, size: int, kind: str) -> Region:
    """Draws an ellipse, a triangle or a star at a random position and angle."""
    radius, (x, y), angle = rng.uniform(*RADIUS) * size, rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, 2 * math.pi)
    if kind == "ellipse":
        angles, radii = np.linspace(0, 2 * math.pi, 64, endpoint=False), np.ones(64)
    elif kind == "triangle":
        angles, radii = (np.arange(3) + rng.uniform(-0.15, 0.15, 3)) * 2 * math.pi / 3, np.full(3, 1.3)
    else:
        points = int(rng.integers(4, 7))
        angles, radii = np.arange(2 * points) * math.pi / points, np.tile([1.3, 0.5], points)
    aspect_ratio = rng.uniform(0.5, 1) if kind == "ellipse" else 1
    u, v = radius * radii * np.cos(angles), radius * radii * np.sin(angles) * aspect_ratio
    cos, sin = math.cos(angle), math.sin(angle)
    outline = np.stack([x + u * cos - v * sin, y + u * sin + v * cos], 1)
    canvas = Image.new("1", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in outline.tolist()], fill=1)
    return np.array(canvas)


def _digit(rng: np.random.Generator, size: int) -> Region:
    """Draws a digit in Pillow's default font at a random position and angle."""
    canvas = Image.new("1", (size, size))
    font = ImageFont.load_default(size=2.8 * rng.uniform(*RADIUS) * size)
    center = tuple(rng.uniform(0.15, 0.85, 2) * size)
    ImageDraw.Draw(canvas).text(center, str(rng.integers(10)), 1, font, anchor="mm", stroke_width=max(1, size // 60))
    return np.array(canvas.rotate(rng.uniform(-30, 30), center=center))


def _curve(rng: np.random.Generator, size: int) -> Region:
    """Draws a thin cubic Bezier curve through the image."""
    control_points = rng.uniform(0, size, (4, 2))
    t = np.linspace(0, 1, 50)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    canvas = Image.new("1", (size, size))
    points = [tuple(point) for point in (weights @ control_points).tolist()]
    ImageDraw.Draw(canvas).line(points, fill=1, width=int(rng.integers(*CURVE_WIDTH, endpoint=True)))
    return np.array(canvas)


def _imitate_camera(rng: np.random.Generator, image: Floats) -> npt.NDArray[np.uint8]:
    """Adds noise, rounds to 8 bits and blurs slightly, to imitate a camera."""
    noisy = image + rng.normal(0, rng.uniform(0, NOISE), image.shape)
    sharp = Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8))
    return np.array(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0, BLUR))))


def options_parser(description: str | None, train: int, valid: int, size: int, epochs: int) -> argparse.ArgumentParser:
    """Returns a parser of the options of a script that trains on the data set, with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--train", type=int, default=train, help="number of training images")
    parser.add_argument("--valid", type=int, default=valid, help="number of validation images")
    parser.add_argument("--size", type=int, default=size, help="side of an image in pixels")
    parser.add_argument("--epochs", type=int, default=epochs, help="number of epochs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the new layers and the batch order")
    return parser


def prepare(folder: Path, options: argparse.Namespace) -> tuple[Any, Path]:
    """Writes the data set and ImageNet weights, sets the seed, and returns the data module and the weights' path."""
    import lightning as L
    from common import ENCODER, prepare_weights

    import lightning_heads as lh

    write(folder, "train", options.train, options.size)
    write(folder, "valid", options.valid, options.size)
    prepare_weights(folder)
    L.seed_everything(options.seed, verbose=False)
    data = lh.MaskFolderData(folder, codes=CLASSES, image_size=options.size, batch_size=8, num_workers=0)
    return data, folder / f"{ENCODER}.safetensors"


def main() -> None:
    """Writes the data set, trains on it from ImageNet weights and prints the mean IoU."""
    import lightning as L
    from common import ENCODER

    import lightning_heads as lh

    options = options_parser(__doc__, train=600, valid=200, size=128, epochs=15).parse_args()
    data, weights = prepare(FOLDER, options)
    task = lh.ImageSegmenter(ENCODER, len(CLASSES), weights=str(weights), ignore_index=data.ignore_index, lr=2e-3)
    trainer = L.Trainer(
        max_epochs=options.epochs, callbacks=[lh.OneCycle()], default_root_dir=FOLDER, logger=False, devices=1
    )
    trainer.fit(task, data)
    scores = trainer.validate(task, data, verbose=False)[0]
    print(f"The data set is in {FOLDER.resolve()}")
    print("  ".join(f"{name} {scores[f'val_iou_{name}']:.3f}" for name in CLASSES))
    print(f"validation mIoU {scores['val_iou']:.3f}")


if __name__ == "__main__":
    main()
