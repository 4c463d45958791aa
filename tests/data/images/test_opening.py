"""Files with broken EXIF, formats of other libraries, and limits of size."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import lightning_heads as lh
from lightning_heads.data import ImageReadError, read_image, read_mask
from lightning_heads.data.images import opening, reading
from lightning_heads.data.images.opening import upright_size

GRAY = np.random.default_rng(0).integers(0, 3, (12, 20)).astype(np.uint8) * 100
COLOR = np.random.default_rng(0).integers(0, 255, (12, 20, 3)).astype(np.uint8)


def _exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    return exif


def _garbage(path: Path, image: Image.Image) -> None:
    image.save(path, exif=b"Exif\0\0no header of TIFF", lossless=True)


def _avif(path: Path, image: Image.Image) -> None:
    image.save(path, exif=_exif(), quality=100, subsampling="4:4:4")
    data = path.read_bytes()
    assert data.count(b"MM\0*") + data.count(b"II*\0") == 1
    path.write_bytes(re.sub(rb"MM\0\*|II\*\0", b"????", data))


def _tiff(tag: int, kind: int, value: object) -> Callable[[Path, Image.Image], None]:
    def save(path: Path, image: Image.Image) -> None:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[tag] = kind
        tags[tag] = value
        image.save(path, tiffinfo=tags)

    return save


BROKEN: dict[str, Callable[[Path, Image.Image], None]] = {
    "jpeg.jpg": _garbage,
    "png.png": _garbage,
    "webp.webp": _garbage,
    "avif.avif": _avif,
    "xmp.tif": _tiff(700, 4, 7),  # XMP as a number
    "link.tif": _tiff(0x8769, 9, -5),  # EXIF before the beginning of the file
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_exif_does_not_matter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    BROKEN[name](path, Image.fromarray(COLOR))
    read = read_image(path).permute(1, 2, 0).numpy().astype(int)
    lossy = path.suffix in (".jpg", ".avif")
    assert np.abs(read - COLOR).mean() < (60 if lossy else 1e-9)
    assert upright_size(path) == (12, 20)
    BROKEN[name](path, Image.fromarray(GRAY))
    assert read_mask(path).shape == (12, 20)
    if not lossy and path.suffix != ".webp":  # which has no gray
        np.testing.assert_array_equal(read_mask(path), GRAY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_all_orientations_are_turned_upright(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    Image.fromarray(COLOR).save(path, exif=_exif(orientation), lossless=True)
    expected = {
        1: COLOR,
        2: COLOR[:, ::-1],
        3: COLOR[::-1, ::-1],
        4: COLOR[::-1],
        5: COLOR.transpose(1, 0, 2),
        6: np.rot90(COLOR, -1),
        7: np.rot90(COLOR[:, ::-1], -1),
        8: np.rot90(COLOR),
    }[orientation]
    np.testing.assert_array_equal(read_image(path).permute(1, 2, 0), expected)
    np.testing.assert_array_equal(read_mask_of_gray(path, tmp_path, orientation), expected[..., 0])
    assert upright_size(path) == expected.shape[:2]


def read_mask_of_gray(path: Path, folder: Path, orientation: int) -> np.ndarray:
    mask = folder / f"mask{path.suffix}"
    Image.fromarray(COLOR[..., 0]).save(mask, exif=_exif(orientation), lossless=True)
    return read_mask(mask)


def test_a_truncated_png_is_refused_whatever_its_exif(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ImageReadError, match="image file is truncated"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.hif", "a.jpg"])  # the last as phones' exports are misnamed
def test_heic_is_read_and_turned_upright(tmp_path: Path, name: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(np.full((64, 96, 3), (200, 100, 40), np.uint8))
    pillow_heif.from_pillow(image).save(tmp_path / "made.heic", exif=_exif(6).tobytes(), quality=90)
    path = (tmp_path / "made.heic").rename(tmp_path / name)
    read = read_image(path)
    assert read.shape == (3, 96, 64)
    assert read[:, 48, 32].tolist() == pytest.approx([200, 100, 40], abs=4)
    assert reading.find_images(tmp_path) == [path]


def _without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (opening, reading):
        monkeypatch.setattr(module, "HAS_HEIF", False)
    monkeypatch.setattr(reading, "EXTENSIONS", reading.EXTENSIONS - opening.HEIF_EXTENSIONS)


def test_files_that_are_not_read_are_counted(
    class_folder: Path, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_heif(monkeypatch)
    for root in (class_folder, shapes_folder):
        for i, name in enumerate(("1.HEIC", "2.heic", "3.nef", "notes.txt", ".hidden.heic")):
            (next(root.iterdir()) / name).write_bytes(bytes([i]))
    message = "are left out, as Pillow does not read them: 2 .heic, 1 .nef; install `pillow-heif` to read HEIC"
    with pytest.warns(UserWarning, match=message):
        data = lh.ImageFolderData(class_folder, image_size=8, num_workers=0, predict_root=class_folder)
    with pytest.warns(UserWarning, match=message):
        data.predict_dataloader()
    with pytest.warns(UserWarning, match=message):
        lh.PairFolderData(class_folder)
    with pytest.warns(UserWarning, match=message):
        lh.RestorationData(class_folder, degradation=lh.Grayscale())
    with pytest.warns(UserWarning, match=message):
        lh.MaskFolderData(shapes_folder, codes={"background": 0, "square": 255})


def test_heic_without_pillow_heif_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_heif(monkeypatch)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.heic").write_bytes(b"ftypheic")
    with pytest.raises(ImageReadError, match="Pillow reads HEIC only with the package `pillow-heif`"):
        read_image(tmp_path / "a/1.heic")
    with pytest.raises(ValueError, match=r"files with \.heic; install `pillow-heif` to read HEIC"):
        lh.ImageFolderData(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_a_limit_of_pixels_can_be_raised(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / name
    Image.fromarray(COLOR).save(path)
    for read in (read_image, read_mask):
        with pytest.raises(ImageReadError, match=r"limit of 200 pixels.* set `max_pixels` to its number of pixels"):
            read(path)
    assert read_image(path, max_pixels=240).shape == (3, 12, 20)
    with pytest.raises(ImageReadError, match="it is 20x12 pixels, more than `max_pixels` of 239"):
        read_image(path, max_pixels=239)


def test_a_data_module_raises_the_limit(shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    settings = {"codes": {"background": 0, "square": 255}, "image_size": 8, "num_workers": 0}
    with pytest.raises(ImageReadError, match="set `max_pixels`"):
        next(iter(lh.MaskFolderData(shapes_folder, **settings).train_dataloader()))
    data = lh.MaskFolderData(shapes_folder, max_pixels=40 * 32, **settings)
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (3, 8, 8)
