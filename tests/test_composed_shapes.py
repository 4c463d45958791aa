import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parent.parent / "examples/composed_shapes.py"


@pytest.fixture(scope="module")
def shapes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("composed_shapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", [64, 128])
def test_masks_are_exact(shapes, monkeypatch, size):
    """On a uniform photograph without noise and blur, the pixels that differ from it are those that the mask labels."""
    flat = np.full((size, size, 3), 0.5)
    monkeypatch.setattr(shapes, "_texture", lambda *_: flat.copy())
    monkeypatch.setattr(shapes, "_match_statistics", lambda rng, texture, covered: texture * 0)
    monkeypatch.setattr(shapes, "CURVES", (0, 0))
    monkeypatch.setattr(shapes, "BLUR", 0)
    monkeypatch.setattr(shapes, "NOISE", 0)
    for seed in range(10):
        image, mask = shapes.compose(seed, size)
        assert torch.equal(image == 0, (mask > 0).expand(3, -1, -1))


def test_curves_are_thin(shapes, monkeypatch):
    monkeypatch.setattr(shapes, "SHAPES", (0, 0))
    curve = shapes.CLASSES.index("curve")
    for seed in range(20):
        _, mask = shapes.compose(seed)
        assert set(mask.unique().tolist()) <= {0, curve}
        # a square of 5 pixels fits where curves cross but never along one
        inner = -torch.nn.functional.max_pool2d(-(mask == curve).float()[None], 5, 1)
        assert inner.mean() < 1e-3


@pytest.mark.parametrize("split", ["train", "valid"])
def test_same_seed_gives_the_same_image(shapes, split):
    for first, second in zip(shapes.compose(3, 64, split), shapes.compose(3, 64, split), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(shapes.compose(3, 64, split)[0], shapes.compose(4, 64, split)[0])


def test_splits_share_no_pixel_of_a_photograph(shapes, monkeypatch):
    """The pixels of the photograph are the numbers of their columns, so that a crop's values tell its place."""
    columns = np.broadcast_to(np.arange(250, dtype=np.uint8)[None, :, None], (250, 250, 3))
    monkeypatch.setattr(shapes, "_read", lambda _: Image.fromarray(np.ascontiguousarray(columns)))
    monkeypatch.setattr(shapes, "SOLAR_CELL_CHANCE", 0)
    rng = np.random.default_rng(0)
    for split, first, last in (("train", 0, 149), ("valid", 150, 249)):
        values = np.stack([shapes._crop(rng, 64, split) for _ in range(50)]) * 255
        assert values.min() == pytest.approx(first, abs=6)
        assert values.max() == pytest.approx(last, abs=6)
        assert values.min() >= first
        assert values.max() <= last


def test_has_every_class_in_both_splits(shapes):
    for split in ("train", "valid"):
        counts = sum(torch.bincount(shapes.compose(i, 64, split)[1].flatten(), minlength=6) for i in range(20))
        share = counts / counts.sum()
        assert len(share) == len(shapes.CLASSES)
        assert 0.6 < share[0] < 0.9
        assert share.min() > 0.008


def test_shapes_are_not_told_by_brightness(shapes):
    """Shapes are darker than the background of their image about as often as they are brighter."""
    darker = []
    for seed in range(60):
        image, mask = shapes.compose(seed, 64)
        gray = image.float().mean(0)
        darker.append((gray[(mask > 0) & (mask < 5)].mean() < gray[mask == 0].mean()).item())
    assert 0.3 < sum(darker) / len(darker) < 0.7


def test_writes_images_and_masks_in_folders_of_their_own(shapes, tmp_path):
    shapes.write(tmp_path, "valid", 2, size=32)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png")) == [
        "valid/images/0000.png",
        "valid/images/0001.png",
        "valid/masks/0000.png",
        "valid/masks/0001.png",
    ]
    image, mask = shapes.compose(1, 32, "valid")
    written = Image.open(tmp_path / "valid/masks/0001.png")
    assert written.mode == "P"
    assert np.array_equal(np.asarray(written), mask.numpy())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "valid/images/0001.png")), image.permute(1, 2, 0).numpy())
