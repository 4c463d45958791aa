from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torchvision.transforms import v2

from lightning_heads.data import ImageReadError, read_image, verify_images
from lightning_heads.data.images.reading import verify
from lightning_heads.data.transforms.resize import ResizeTo


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def _levels(path: Path, channels: int = 3) -> list[int]:
    return read_image(path, channels)[:, 4, 4].tolist()


def test_images_of_all_modes_are_converted(tmp_path: Path) -> None:
    gray = np.full((8, 8), 200, np.uint8)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 250
    deep = np.full((8, 8), 200 * 257, np.uint16)
    palette = Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE)
    clear = Image.fromarray(np.dstack([red, np.zeros((8, 8), np.uint8)]), "RGBA")
    cases = {
        "gray.png": (Image.fromarray(gray), [200, 200, 200]),
        "bits16.png": (Image.fromarray(deep), [200, 200, 200]),
        "bits16.tif": (Image.fromarray(deep), [200, 200, 200]),
        "float.tif": (Image.fromarray(gray.astype(np.float32) / 255), [200, 200, 200]),
        "palette.png": (palette, [250, 0, 0]),
        "clear.png": (clear, [255, 255, 255]),
        "one_bit.png": (Image.fromarray(gray > 100), [255, 255, 255]),
        "cmyk.tif": (Image.fromarray(red).convert("CMYK"), [250, 0, 0]),
    }
    for name, (image, expected) in cases.items():
        assert _levels(_save(tmp_path / name, image)) == pytest.approx(expected, abs=2), name
    assert _levels(tmp_path / "clear.png", 4) == [250, 0, 0, 0]
    assert _levels(tmp_path / "bits16.png", 1) == [200]


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    path = _save(tmp_path / "turned.jpg", Image.fromarray(image), exif=exif, quality=95)
    upright = read_image(path)
    assert upright.shape == (3, 16, 8)
    assert upright[0, 2].float().mean() > 250
    assert upright[0, -2].float().mean() < 5


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:1500])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (_truncated, "reading it failed: image file is truncated"),
    "empty.png": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text.png": (lambda path: path.write_text("not an image"), "cannot identify"),
    "pixel.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "1x1 pixels, where both sides must have 2"),
    "strip.png": (lambda path: Image.new("RGB", (20_000, 20)).save(path), "20000x20 pixels, more than 100 times"),
    "missing.png": (lambda path: None, "there is no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ImageReadError, match=message) as info:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(info.value)
    assert info.value.path == tmp_path / name


def test_verify_names_each_bad_file_in_order(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    good = make_image("good.png")
    errors = verify_images([good, *(tmp_path / name for name in BAD)], progress=False)
    assert [error.path.name for error in errors] == [*BAD]


def test_verify_gives_errors_by_index() -> None:
    def read(index: int) -> None:
        if index % 3 == 1:
            raise ImageReadError(Path(f"{index}.png"), "it is odd")

    found = verify(8, read, progress=False)
    assert {index: error.path.stem for index, error in found.items()} == {1: "1", 4: "4", 7: "7"}
    with pytest.raises(ZeroDivisionError):
        verify(1, lambda index: 1 // index, progress=False)


def test_channels_are_checked(make_image: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="`channels` to be 1, 3 or 4, but got 2"):
        read_image(make_image("a.png"), 2)


def test_gives_uint8_of_the_files_size(make_image: Callable[..., Path]) -> None:
    image = read_image(make_image("a.png", size=(40, 32)))
    assert (image.dtype, image.shape) == (torch.uint8, (3, 32, 40))


PHOTO = Image.fromarray(data.coffee()[:392])  # 392x600, the size of whole blocks


def _scaled(path: Path, method: str, side: int, channels: int = 3) -> torch.Tensor:
    return read_image(path, channels, size=ResizeTo((side, side), method).scaled_size)


def _full(path: Path, method: str, side: int, channels: int = 3) -> torch.Tensor:
    image = read_image(path, channels)
    resized: torch.Tensor = ResizeTo((side, side), method, whole=True)(image)
    return resized


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
@pytest.mark.parametrize("options", [{}, {"progressive": True, "subsampling": 0}])
def test_scaled_decoding_of_a_jpeg_equals_full_decoding_but_for_antialiasing(
    tmp_path: Path, mode: str, method: str, options: dict[str, object]
) -> None:
    path = _save(tmp_path / "a.jpg", PHOTO.convert(mode), quality=90, **options)
    for side in (24, 31, 39, 40, 78, 157, 300):
        scaled, full = _scaled(path, method, side), _full(path, method, side)
        assert scaled.shape == full.shape
        assert (scaled.int() - full.int()).abs().float().mean() < 2


def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", PHOTO, quality=90)
    for side, divisor in ((39, 8), (40, 4), (78, 4), (79, 2), (156, 2), (157, 1)):
        with Image.open(path) as file:
            file.draft(None, (600 // divisor, 392 // divisor))
            decoded = torch.from_numpy(np.array(file)).permute(2, 0, 1)
        assert decoded.shape[1] == 392 // divisor
        expected = v2.functional.resize(decoded, [side, round(600 * side / 392)], antialias=True)
        assert _scaled(path, "crop", side).equal(expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_scaled_decoding_turns_the_image_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "a.jpg", PHOTO, quality=90, exif=exif)
    for method in ("crop", "squish"):
        scaled, full = _scaled(path, method, 30), _full(path, method, 30)
        assert scaled.shape == full.shape
        assert (scaled.int() - full.int()).abs().float().mean() < 2


def test_other_formats_are_resized_as_before(tmp_path: Path) -> None:
    for name in ("a.png", "a.webp", "a.tif"):
        path = _save(tmp_path / name, PHOTO)
        assert _scaled(path, "crop", 30).equal(_full(path, "crop", 30))
    path = _save(tmp_path / "a.mpo", PHOTO, save_all=True, append_images=[PHOTO], quality=90)
    path = path.rename(tmp_path / "phone.jpg")  # phones write several pictures into a JPEG
    assert (_scaled(path, "crop", 30).int() - _full(path, "crop", 30).int()).abs().float().mean() < 2


def test_a_truncated_jpeg_is_refused_at_any_scale(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", PHOTO, quality=90)
    path.write_bytes(path.read_bytes()[:-5000])
    for side in (20, 200):
        with pytest.raises(ImageReadError, match="image file is truncated"):
            _scaled(path, "crop", side)
