"""Images that are decoded at a smaller scale stay aligned with their masks and targets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_heads.data.images.opening import ImageReadError
from lightning_heads.data.masks.codes import MaskCodes
from lightning_heads.data.masks.dataset import MaskDataset
from lightning_heads.data.masks.reading import MaskReadError
from lightning_heads.data.restoration.dataset import RestorationDataset
from lightning_heads.data.transforms.resize import ResizeTo

HEIGHT, WIDTH = 301, 453  # no whole blocks of a JPEG


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A large JPEG with a bright rectangle, and its mask of 0 and 1."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[40:200, 90:350] = 1
    Image.fromarray(mask * np.uint8(200) + np.uint8(20)).convert("RGB").save(tmp_path / "image.jpg", quality=95)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "image.jpg", tmp_path / "mask.png"


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("method", ["crop", "squish", "pad", "none"])
def test_a_scaled_jpeg_is_aligned_with_its_mask(pair: tuple[Path, Path], method: str, random: bool) -> None:
    size = ResizeTo((30, 40), method, random=random)
    dataset = MaskDataset([pair[0]], [pair[1]], codes=MaskCodes(2), ignore_index=None, size=size)
    image, mask = dataset[0]
    assert image.shape == (3, *mask.shape) == (3, 30, 40)
    assert ((image[0] > 120 / 255) == (mask == 1)).float().mean() > 0.99


def test_a_mask_of_another_size_is_refused_even_if_scaled_sizes_are_equal(pair: tuple[Path, Path]) -> None:
    Image.new("L", (2 * WIDTH, 2 * HEIGHT)).save(pair[1])
    dataset = MaskDataset(
        [pair[0]], [pair[1]], codes=MaskCodes(2), ignore_index=None, size=ResizeTo((30, 40)), channels=1
    )
    with pytest.raises(MaskReadError, match=r"mask\.png .* it is 906x602 pixels, while .*image\.jpg is 453x301"):
        dataset[0]


@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
def test_a_scaled_jpeg_is_aligned_with_its_target(pair: tuple[Path, Path], method: str) -> None:
    target = pair[0].with_suffix(".png")
    Image.open(pair[0]).save(target)
    degraded, original = RestorationDataset([pair[0]], [target], size=ResizeTo((30, 40), method, random=True))[0]
    assert degraded.shape == original.shape == (3, 30, 40)
    assert (degraded - original).abs().mean() < 2 / 255
    assert original.amax() - original.amin() > 0.7
    Image.new("RGB", (2 * WIDTH, 2 * HEIGHT)).save(target)
    with pytest.raises(ImageReadError, match=r"image\.png .* it is 906x602 pixels, while .*image\.jpg is 453x301"):
        RestorationDataset([pair[0]], [target], size=ResizeTo((30, 40), method))[0]


def test_a_single_image_is_scaled_as_with_full_decoding(pair: tuple[Path, Path]) -> None:
    size = ResizeTo((30, 40))
    (image,) = RestorationDataset([pair[0]], None, size=size).read(0)
    full = torch.from_numpy(np.array(Image.open(pair[0]))).permute(2, 0, 1)
    expected = ResizeTo((30, 40), whole=True)(full)
    assert image.shape == expected.shape
    assert (image.int() - expected.int()).abs().float().mean() < 2
