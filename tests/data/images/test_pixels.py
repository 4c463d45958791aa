"""One range of values for all files of a data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch
from PIL import Image

import lightning_heads as lh
from lightning_heads.data import ImageReadError, read_image, read_mask

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # all values of 12 bits


def _read(path: Path, values: np.ndarray, **reading: Any) -> np.ndarray:
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 %d %d %d\n" % (values.shape[1], values.shape[0], 1023) + values.astype(">u2").tobytes())
    else:
        skimage.io.imsave(path, values, check_contrast=False)
    return read_image(path, 1, **reading)[0].numpy()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_12_bits_in_16_bit_files_keep_their_levels(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(
        _read(tmp_path / name, RAMP, value_range=(0, 4095)), (RAMP * (255 / 4095)).round().astype(np.uint8)
    )
    dark = _read(tmp_path / name, RAMP // 40, value_range=(0, 4095))
    assert dark.max() == round(4095 // 40 * 255 / 4095)  # not by the largest value of the file


@pytest.mark.parametrize(
    ("dtype", "value_range", "factor"),
    [
        (np.float32, None, 1 / 4096),
        (np.float32, (0, 4095), 1),
        (np.float32, (-4095, 4095), 1),
        (np.int32, (0, 4095 * 70000), 70000),
        (np.uint32, (0, 4095 * 1000000), 1000000),  # above the largest signed integer
        (np.int16, (0, 4095 * 7), 7),
        (np.uint16, None, 16),
        (np.uint8, (0, 63), 1),
    ],
)
def test_values_of_all_types_have_one_scale(
    tmp_path: Path, dtype: type, value_range: tuple[float, float] | None, factor: float
) -> None:
    stored = (RAMP.astype(np.float64) * factor).astype(dtype)
    types = {np.float32: (0, 1), np.uint16: (0, 65535)}
    low, high = value_range or types[dtype]
    expected = ((stored.astype(np.float64) - low) / (high - low) * 255).clip(0, 255)
    for part in (stored, stored[:8]):
        read = _read(tmp_path / "a.tif", part, value_range=value_range)
        assert np.abs(read - expected[: len(part)]).max() <= 0.5 + 1e-6


def test_a_value_slightly_above_1_changes_no_other_pixel(tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    before = _read(tmp_path / "a.tif", values)
    values[0, 0] = 1.0001
    after = _read(tmp_path / "a.tif", values)
    assert after[0, 0] == 255
    assert (after.ravel()[1:] == before.ravel()[1:]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("value_range", [None, (0, 255)])
def test_pixels_that_are_not_finite_name_the_file(tmp_path: Path, bad: float, value_range: Any) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[2, 3:5] = bad
    with pytest.raises(ImageReadError, match=r"a\.tif to be an image, but 2 of its pixels are NaN or infinite"):
        _read(tmp_path / "a.tif", values, value_range=value_range)
    with pytest.raises(ImageReadError, match=r"a\.tif to be a mask, but it holds -?(nan|inf|0\.5)"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.int32), "32-bit or signed integers, which have no common range; set `value_range`"),
        (RAMP.astype(np.uint32), "32-bit or signed integers"),
        (RAMP.astype(np.int16), "32-bit or signed integers"),
        (RAMP.astype(np.float32), "its floats are from 0 to 4095 instead of 0 to 1; set `value_range`"),
        (-RAMP.astype(np.float32), "its floats are from -4095 to -?0 instead"),
    ],
)
def test_a_type_without_range_needs_value_range(tmp_path: Path, values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageReadError, match=message):
        _read(tmp_path / "a.tif", values)


def test_pgm_is_scaled_by_its_largest_value(tmp_path: Path) -> None:
    expected = (RAMP.clip(0, 1023) * (255 / 1023)).round()
    for value_range in (None, (0, 1023)):
        read = _read(tmp_path / "a.pgm", RAMP.clip(0, 1023), value_range=value_range)
        np.testing.assert_array_equal(read, expected)


def test_8_bit_files_have_the_range_too(tmp_path: Path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    color = np.stack([gray, gray[::-1], gray.T, np.full_like(gray, 128)], axis=-1)
    modes = {"L": gray, "RGB": color[..., :3], "RGBA": color}
    for mode, array in modes.items():
        Image.fromarray(array).save(tmp_path / f"{mode}.png")
    expected = (color.clip(0, 50) * 5.1).round().transpose(2, 0, 1)
    gray_read, rgb, rgba = (read_image(tmp_path / f"{m}.png", 4, value_range=(0, 50)).numpy() for m in modes)
    np.testing.assert_array_equal(gray_read[:3], expected[[0, 0, 0]])
    np.testing.assert_array_equal(rgb[:3], expected[:3])
    np.testing.assert_array_equal(rgba, [*expected[:3], np.full((8, 8), 128)])
    Image.fromarray(gray % 16).save(tmp_path / "bits4.png", bits=4)
    for value_range, factor in ((None, 17), ((0, 15), 17), ((0, 51), 5)):
        levels = read_image(tmp_path / "bits4.png", 1, value_range=value_range).numpy()[0]
        np.testing.assert_array_equal(levels, gray % 16 * factor)


def test_colors_of_16_bits_have_no_value_range(tmp_path: Path) -> None:
    skimage.io.imsave(tmp_path / "a.tif", RAMP[..., None].repeat(3, 2), check_contrast=False)
    with pytest.raises(ImageReadError, match="16 bits per channel, of which only 8 would be read"):
        read_image(tmp_path / "a.tif", value_range=(0, 4095))


@pytest.mark.parametrize("wrong", [(1, 1), (3, 0), (0, np.nan), (0, np.inf), (1, 2, 3)])
def test_a_wrong_range_is_refused(make_image: Callable[..., Path], wrong: Any) -> None:
    path = make_image("photos/a/a.png")
    make_image("photos/b/b.png")
    with pytest.raises(ValueError, match="`value_range` to be two numbers in ascending order, but got"):
        read_image(path, value_range=wrong)
    with pytest.raises(ValueError, match="`value_range` to be two numbers in ascending order, but got"):
        lh.ImageFolderData(path.parents[1], valid_fraction=0, value_range=wrong)


LOADERS: dict[str, Callable[..., Any]] = {
    "images": lambda root, **kwargs: lh.ImageFolderData(root / "images", valid_fraction=0, **kwargs).train_dataloader(),
    "predict": lambda root, **kwargs: lh.ImageFolderData(
        root / "images", valid_fraction=0, predict_root=root / "images", **kwargs
    ).predict_dataloader(),
    "pairs": lambda root, **kwargs: lh.PairFolderData(root / "images", valid_fraction=0, **kwargs).train_dataloader(),
    "masks": lambda root, **kwargs: lh.MaskFolderData(
        root, codes=2, valid_fraction=0, ignore_index=None, **kwargs
    ).train_dataloader(),
    "restoration": lambda root, **kwargs: lh.RestorationData(
        root / "images", degradation=lh.Grayscale(), valid_fraction=0, **kwargs
    ).train_dataloader(),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_all_data_modules_take_a_range(tmp_path: Path, kind: str) -> None:
    for i, name in enumerate(("a/0", "a/1", "b/2", "b/3")):
        for folder, values in (("images", np.full((8, 8), 1000 * i, np.int32)), ("masks", np.zeros((8, 8), np.uint8))):
            path = tmp_path / folder / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    settings = {"image_size": 8, "batch_size": 4, "num_workers": 0, "augment": False, "on_error": "skip"}
    loader = LOADERS[kind](tmp_path, value_range=(np.int64(0), np.int64(3000)), **settings)
    (batch,) = loader
    levels = (batch if isinstance(batch, torch.Tensor) else batch[0]).amax(dim=(1, 2, 3)).sort().values
    assert levels.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
