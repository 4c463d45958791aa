import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import torch
from PIL import Image

from lightning_heads.data.masks.codes import MaskCodes
from lightning_heads.data.masks.reading import MaskReadError, mask_values, read_mask

CLASSES = np.random.default_rng(0).integers(0, 3, (12, 10)).astype(np.uint8)
COLORS = np.array([[0, 0, 0], [128, 64, 128], [255, 255, 255]], np.uint8)


def _palette(classes: np.ndarray) -> Image.Image:
    image = Image.fromarray(classes).convert("L")
    image.putpalette(COLORS.flatten().tolist())
    return image


MODES: dict[str, tuple[Callable[[], Image.Image], np.ndarray]] = {
    "gray.png": (lambda: Image.fromarray(CLASSES), CLASSES),
    "palette.png": (lambda: _palette(CLASSES), CLASSES),
    "palette.gif": (lambda: _palette(CLASSES), CLASSES),
    "bits16.png": (lambda: Image.fromarray(CLASSES.astype(np.uint16) * 1000), CLASSES.astype(int) * 1000),
    "bits16.tif": (lambda: Image.fromarray(CLASSES.astype(np.uint16) * 1000), CLASSES.astype(int) * 1000),
    "bits32.tif": (lambda: Image.fromarray(CLASSES.astype(np.int32) * 70000), CLASSES.astype(int) * 70000),
    "float.tif": (lambda: Image.fromarray(CLASSES.astype(np.float32)), CLASSES),
    "one_bit.png": (lambda: Image.fromarray(CLASSES > 0), CLASSES > 0),
    "gray_rgb.png": (lambda: Image.fromarray(CLASSES[..., None].repeat(3, 2)), CLASSES),
    "gray_rgba.png": (lambda: Image.fromarray(CLASSES).convert("RGBA"), CLASSES),
    "gray_alpha.png": (lambda: Image.fromarray(CLASSES).convert("LA"), CLASSES),
}


@pytest.mark.parametrize("name", MODES)
def test_values_are_read_as_they_are_stored(tmp_path: Path, name: str) -> None:
    make, expected = MODES[name]
    make().save(tmp_path / name)
    values = read_mask(tmp_path / name)
    np.testing.assert_array_equal(values, expected)
    present, counts = np.unique(expected, return_counts=True)
    counted = mask_values([tmp_path / name], progress=False)
    assert counted == dict(zip(present.tolist(), counts.tolist(), strict=True))


def _bits_png(path: Path, values: np.ndarray, bits: int) -> None:
    Image.fromarray(values).save(path, bits=bits)


def _bits_tiff(path: Path, values: np.ndarray, bits: int) -> None:
    """Writes a TIFF of 2 or 4 bits, which Pillow cannot write, from `(h, w)` with whole bytes in a row."""
    height, width = values.shape
    parts = values.reshape(height, -1, 8 // bits).astype(int)
    packed = sum(parts[..., i] << (8 - bits * (i + 1)) for i in range(8 // bits)).astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 122, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(struct.pack("<4sIH", b"II*\0", 8, len(tags)) + entries + struct.pack("<I", 0) + packed)


def _pgm(path: Path, values: np.ndarray, largest: int) -> None:
    dtype = np.uint8 if largest < 256 else ">u2"
    path.write_bytes(b"P5 %d %d %d\n" % (*values.shape[::-1], largest) + values.astype(dtype).tobytes())


def _plain_pgm(path: Path, values: np.ndarray, largest: int) -> None:
    path.write_text(f"P2 {values.shape[1]} {values.shape[0]} {largest}\n{' '.join(map(str, values.ravel()))}\n")


def _gray_ppm(path: Path, values: np.ndarray, largest: int) -> None:
    path.write_bytes(b"P6 %d %d %d\n" % (*values.shape[::-1], largest) + values.repeat(3).tobytes())


@pytest.mark.parametrize(
    ("write", "argument", "factor"),
    [
        (_bits_png, 2, 1),
        (_bits_png, 4, 7),
        (_bits_tiff, 2, 1),
        (_bits_tiff, 4, 7),
        (_pgm, 3, 1),
        (_pgm, 200, 99),
        (_pgm, 1000, 450),
        (_plain_pgm, 5, 2),
        (_plain_pgm, 3000, 700),
        (_gray_ppm, 7, 3),
    ],
)
def test_values_of_any_depth_are_not_scaled(
    tmp_path: Path, write: Callable[[Path, np.ndarray, int], None], argument: int, factor: int
) -> None:
    stored = CLASSES[:, :8] * (np.uint16(factor) if factor > 99 else np.uint8(factor))
    path = tmp_path / f"mask.{'tif' if write is _bits_tiff else 'png' if write is _bits_png else 'pgm'}"
    write(path, stored, argument)
    np.testing.assert_array_equal(read_mask(path), stored)
    assert {*mask_values([path], progress=False)} == {*np.unique(stored).tolist()}


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("rgb.png", Image.fromarray(COLORS[CLASSES])),
        ("rgba.png", Image.fromarray(COLORS[CLASSES]).convert("RGBA")),
        ("palette.png", _palette(CLASSES)),
    ],
)
def test_colors_are_classes(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name, colors=True), COLORS[CLASSES])
    codes = MaskCodes({"void": [0, 0, 0], "road": [128, 64, 128], "sky": (255, 255, 255)})
    read = codes.read([tmp_path / name])
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read[0], CLASSES)
    assert (read[1] == 1).all()
    counted = mask_values(tmp_path, colors=True, progress=False)
    assert counted == {tuple(COLORS[i].tolist()): np.count_nonzero(i == CLASSES) for i in range(3)}


def test_masks_are_turned_upright_as_images_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    Image.fromarray(CLASSES).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), np.rot90(CLASSES, -1))


def test_values_are_counted_over_all_files(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((2, 4), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    Image.fromarray(np.full((2, 4), 20, np.uint8)).save(tmp_path / "again.png")
    assert mask_values(tmp_path, progress=False) == {0: 8, 10: 8, 20: 16}
    with pytest.raises(ValueError, match="masks in `paths`, but there are none in"):
        mask_values([])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_coded_values_become_indices_in_the_order_of_the_codes(tmp_path: Path, dtype: type) -> None:
    values = np.array([0, 255, 7], dtype)
    Image.fromarray(values[CLASSES]).save(tmp_path / "mask.png")
    read = MaskCodes({"cell": 255, "background": 0}, ignore=[7]).read([tmp_path / "mask.png"])
    known = CLASSES != 2
    np.testing.assert_array_equal(read[1], known)
    np.testing.assert_array_equal(read[0][known], (CLASSES == 0)[known])


def test_codes_are_names_or_their_number(tmp_path: Path) -> None:
    Image.fromarray(CLASSES).save(tmp_path / "mask.png")
    for codes, names in ((["a", "b", "c"], ["a", "b", "c"]), (3, ["0", "1", "2"]), (np.array(["a", "b", "c"]), None)):
        coded = MaskCodes(codes)
        assert coded.class_names == (names or ["a", "b", "c"])
        np.testing.assert_array_equal(coded.read([tmp_path / "mask.png"])[0], CLASSES)


def test_more_classes_than_fit_in_a_byte(tmp_path: Path) -> None:
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(MaskCodes(400).read([tmp_path / "mask.png"])[0], values)


@pytest.mark.parametrize(
    ("codes", "scale"),
    [(["a", "b"], 1), (["a", "b"], 255), ({"a": 9, "b": 9}, 9), ({"a": [0, 0, 8], "b": [0, 0, 8]}, 8)],
)
def test_a_mask_for_each_class(tmp_path: Path, codes: object, scale: int) -> None:
    masks = np.random.default_rng(1).integers(0, 2, (2, 6, 8)).astype(np.uint8)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, mask in zip(files, masks, strict=True):
        blue = np.stack([0 * mask, 0 * mask, mask * np.uint8(scale)], axis=-1)
        Image.fromarray(blue if scale == 8 else mask * np.uint8(scale)).save(file)
    read = MaskCodes(codes, multilabel=True).read(files)
    np.testing.assert_array_equal(read, [*masks, np.ones((6, 8))])


def test_a_pixel_of_unknown_class_in_one_of_several_masks_is_ignored_in_all(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, mask in zip(files, ([[0, 1], [9, 1]], [[1, 9], [1, 1]]), strict=True):
        Image.fromarray(np.array(mask, np.uint8)).save(file)
    read = MaskCodes(["a", "b"], ignore=[9], multilabel=True).read(files)
    assert read[-1].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("codes", "values", "message"),
    [
        (3, np.array([[0, 1, 2], [4, 1, 4]]), "value 4 is not a class: 2 pixels have it, the first at row 1, column 0"),
        (
            {"no": 0, "yes": 255},
            np.array([[0, 255], [1, 0]]),
            "value 1 is not .* 1 pixels .* row 1, column 0; .*have 0, 255",
        ),
        (
            {"no": [0, 0, 0], "yes": [9, 9, 9]},
            np.array([[[9, 9, 9], [0, 0, 0]], [[9, 9, 9], [1, 2, 3]]]),
            r"color \[1, 2, 3\] is not a class: 1 pixels have it, the first at row 1, column 1",
        ),
        (3, np.array([[[9, 9, 9], [1, 2, 3]]]), r"colors such as \[1, 2, 3\], where its classes are given as numbers"),
    ],
)
def test_unknown_values_are_named(tmp_path: Path, codes: object, values: np.ndarray, message: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(values.astype(np.uint8)).save(path)
    with pytest.raises(MaskReadError, match=message) as info:
        MaskCodes(codes).read([path])
    assert info.value.path == path
    assert str(path) in str(info.value)


def _deep(path: Path) -> None:
    Image.fromarray(CLASSES.astype(np.uint16)).save(path)


BAD: dict[str, tuple[Callable[[Path], object], bool, str]] = {
    "missing.png": (lambda path: None, False, "there is no such file"),
    "empty.png": (lambda path: path.write_bytes(b""), False, "the file is empty"),
    "text.png": (lambda path: path.write_text("x"), False, "reading it failed: cannot identify"),
    "deep.png": (_deep, True, "numbers of more than 8 bits, where its classes are given as colors"),
    "negative.tif": (lambda path: Image.fromarray(CLASSES - np.int32(1)).save(path), False, "it holds -1"),
    "fraction.tif": (lambda path: Image.fromarray(CLASSES * np.float32(0.5)).save(path), False, "it holds 0.5"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_masks_are_named(tmp_path: Path, name: str) -> None:
    make, colors, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(MaskReadError, match=f"{name} to be a mask, but .*{message}"):
        read_mask(tmp_path / name, colors)


def _png16(path: Path, values: np.ndarray) -> None:
    """Writes `(h, w, c)` with 16 bits per channel, which Pillow cannot write."""
    height, width, channels = values.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0), b"IDAT": zlib.compress(rows)}
    written = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in {**chunks, b"IEND": b""}.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


@pytest.mark.parametrize("colors", [False, True])
@pytest.mark.parametrize("name", ["2.png", "3.png", "4.png", "3.tif"])
def test_several_channels_of_16_bits_are_refused(tmp_path: Path, name: str, colors: bool) -> None:
    path = tmp_path / name
    values = (CLASSES.astype(np.uint16) * 259)[..., None].repeat(int(name[0]), 2)
    if name.endswith("png"):
        _png16(path, values)
    else:
        skimage.io.imsave(path, values, check_contrast=False)
    with pytest.raises(MaskReadError, match="it has 16 bits per channel, of which only 8 would be read"):
        read_mask(path, colors)
    _png16(tmp_path / "gray.png", values[..., :1])
    np.testing.assert_array_equal(read_mask(tmp_path / "gray.png"), values[..., 0])


def test_unknown_values_in_a_jpeg_are_explained(tmp_path: Path) -> None:
    Image.fromarray(CLASSES * np.uint8(100)).save(tmp_path / "mask.jpg")
    with pytest.raises(MaskReadError, match="JPEG changes values, PNG keeps them"):
        MaskCodes({"a": 0, "b": 100, "c": 200}).read([tmp_path / "mask.jpg"])


@pytest.mark.parametrize(
    ("codes", "ignore", "message"),
    [
        (1, [], "two classes or more"),
        (["a", "a"], [], "name each class once"),
        ({"a": 0, "b": 0}, [], "each code once, but 0 is there twice"),
        ({"a": 0, "b": 1}, [1], "each code once, but 1 is there twice"),
        ({"a": 0, "b": [1, 2, 3]}, [], r"all numbers or all colors, but got \(1, 2, 3\) too"),
        ({"a": [0, 0, 0], "b": 7}, [], "all numbers or all colors, but got 7 too"),
        ({"a": [0, 0, 0], "b": [1, 2]}, [], r"a color of three numbers in 0..255, but got \(1, 2\)"),
        ({"a": [0, 0, 0], "b": [1, 2, 256]}, [], "a color of three numbers"),
        ({0: "background", 1: "cell"}, [], r"a number or a color, as in {'sky': 1}, but got 'background'"),
        ({"a": 0, "b": 0.5}, [], "a number or a color, .* but got 0.5"),
        ({"a": -1, "b": 1}, [], "a number in 0..65535, but got -1"),
    ],
)
def test_invalid_codes_are_refused(codes: object, ignore: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskCodes(codes, ignore)


def test_a_string_of_codes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a list or mapping of classes, but got the string 'codes\.txt'"):
        MaskCodes("codes.txt")


def test_codes_of_numpy_are_taken() -> None:
    assert MaskCodes(np.uint8(2) + np.int64(1)).class_names == ["0", "1", "2"]
    named = MaskCodes({np.str_("cell"): np.int64(7), np.str_("void"): np.int64(0)}, ignore=np.array([9]))
    assert named.class_names == ["cell", "void"]
