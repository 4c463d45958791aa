import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

MakeImage = Callable[..., Path]


def write_image(path: Path, size: tuple[int, int] = (40, 32), level: int = 128, seed: int = 0) -> Path:
    """Writes noise around a gray level, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
    Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def pytest_collection_finish() -> None:
    """Exempts what was imported from garbage collection, which would otherwise traverse it again in many tests."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """Writes a random photograph-like image below `tmp_path`."""

    def make(name: str, size: tuple[int, int] = (40, 32), level: int = 128, seed: int = 0) -> Path:
        return write_image(tmp_path / name, size, level, seed)

    return make


@pytest.fixture
def shapes_folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Ten dark photographs with a bright square each, and masks of 0 and 255 beside them."""
    for i in range(10):
        path = make_image(f"shapes/images/{i}.png", level=60, seed=i)
        image = np.array(Image.open(path))
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[i : i + 16, 8 : 8 + 20] = 255
        image[mask > 0] += 120
        Image.fromarray(image).save(path)
        mask_path = tmp_path / f"shapes/masks/{i}.png"
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(mask_path)
    return tmp_path / "shapes"


@pytest.fixture
def class_folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Two classes of ten images that differ in brightness."""
    for name, level in (("bright", 200), ("dark", 60)):
        for i in range(10):
            make_image(f"photos/{name}/{i}.png", level=level, seed=i)
    return tmp_path / "photos"
