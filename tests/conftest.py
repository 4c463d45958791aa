from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

MakeImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """Writes a random photograph-like image below `tmp_path`."""

    def make(name: str, size: tuple[int, int] = (40, 32), level: int = 128, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
        Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def class_folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Two classes of ten images that differ in brightness."""
    for name, level in (("bright", 200), ("dark", 60)):
        for i in range(10):
            make_image(f"photos/{name}/{i}.png", level=level, seed=i)
    return tmp_path / "photos"
