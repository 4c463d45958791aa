from collections.abc import Callable
from pathlib import Path

import jsonargparse
import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.data.masks.folder import MaskFolderData
from lightning_heads.data.masks.reading import MaskReadError

SIDE = 48
MakePair = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Writes a blue image whose red and green are columns and rows, and a mask with a class for each of 4 x 4 parts."""

    def make(image: str, mask: str, size: tuple[int, int] = (SIDE, SIDE), **options: object) -> tuple[Path, Path]:
        columns, rows = (np.linspace(0, 255, n).round().astype(np.uint8) for n in size)
        grid = np.stack([*np.meshgrid(columns, rows), np.full(size[::-1], 255, np.uint8)], axis=-1)
        for path in (tmp_path / image, tmp_path / mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid).save(tmp_path / image, **options)
        Image.fromarray(_parts(grid[..., 0], grid[..., 1])).save(tmp_path / mask)
        return tmp_path / image, tmp_path / mask

    return make


@pytest.fixture
def pairs(tmp_path: Path, make_pair: MakePair) -> Path:
    for i in range(10):
        make_pair(f"data/images/{i}.png", f"data/masks/{i}.png")
    return tmp_path / "data"


def _parts(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return (rows // 64) * 4 + columns // 64


def _data(root: Path, **settings: object) -> MaskFolderData:
    settings = {"codes": 16, "image_size": SIDE, "batch_size": 4, "num_workers": 0, **settings}
    return MaskFolderData(root, **settings)


def _counts(data: lh.ImageData) -> dict[str, int]:
    return {split: len(samples.paths) for split, samples in data.samples.items()}


@pytest.mark.parametrize("layout", ["data/{split}/{kind}/deep", "data/{kind}/{split}/deep"])
@pytest.mark.parametrize("valid", ["valid", "val"])
def test_split_folders_determine_the_splits(tmp_path: Path, make_pair: MakePair, layout: str, valid: str) -> None:
    for split, count in (("train", 3), (valid, 2), ("test", 1)):
        for i in range(count):
            image, mask = (layout.format(split=split, kind=kind) for kind in ("images", "masks"))
            make_pair(f"{image}/{i}.jpg", f"{mask}/{i}.png")
    data = _data(tmp_path / "data")
    assert _counts(data) == {"train": 3, "valid": 2, "test": 1}
    for samples in data.samples.values():
        for path, mask in zip(samples.paths, samples.targets, strict=True):
            assert str(mask) == str(path).replace("images", "masks").replace(".jpg", ".png")


@pytest.mark.parametrize("layout", ["data/{split}/{kind}", "data/{kind}/{split}"])
def test_two_folders_for_validation_are_refused(tmp_path: Path, make_pair: MakePair, layout: str) -> None:
    for split in ("train", "valid", "val"):
        make_pair(*(f"{layout.format(split=split, kind=kind)}/0.png" for kind in ("images", "masks")))
    with pytest.raises(ValueError, match=r"Expected one of .*/valid.* and .*/val.*, but both are there"):
        _data(tmp_path / "data")


def test_one_folder_is_split_by_fractions_reproducibly(pairs: Path) -> None:
    data = _data(pairs, test_fraction=0.1)
    assert _counts(data) == {"train": 7, "valid": 2, "test": 1}
    assert len({path for samples in data.samples.values() for path in samples.paths}) == 10
    assert _data(pairs, test_fraction=0.1).samples == data.samples
    assert _data(pairs, test_fraction=0.1, seed=1).samples != data.samples


@pytest.mark.parametrize(
    ("image", "mask", "settings"),
    [
        ("images/{}.jpg", "labels/{}_P.png", {"masks": "labels/{stem}_P.png"}),
        ("images/a/{}.jpg", "labels/a/m_{}.png", {"masks": "labels/{folder}/m_{stem}.png"}),
        ("{}.jpg", "{}_mask.png", {"images": ".", "masks": "{stem}_mask.png"}),
        ("{}.png", "{}_mask.png", {"images": ".", "masks": lambda path: path.with_name(f"{path.stem}_mask.png")}),
        ("{}.png", "masks/{}.png", {"images": "."}),
        ("photos/b.{}.jpg", "drawn/b.{}.tif", {"images": "photos", "masks": Path("drawn")}),
    ],
)
def test_masks_are_found_by_folder_pattern_or_function(
    tmp_path: Path, make_pair: MakePair, image: str, mask: str, settings: dict
) -> None:
    expected = dict(make_pair(f"data/{image.format(i)}", f"data/{mask.format(i)}") for i in range(4))
    samples = _data(tmp_path / "data", valid_fraction=0, **settings).samples["train"]
    assert dict(zip(samples.paths, samples.targets, strict=True)) == expected


def test_batches_have_the_images_and_their_masks_unchanged(pairs: Path) -> None:
    for i in range(10):
        Image.fromarray(np.full((SIDE, SIDE), i, np.uint8)).save(pairs / f"images/{i}.png")
        noise = np.random.default_rng(i).integers(0, 16, (SIDE, SIDE)).astype(np.uint8)
        Image.fromarray(noise).save(pairs / f"masks/{i}.png")
    data = _data(pairs, augment=False)
    assert data.num_classes == 16
    seen = []
    for images, masks in [*data.train_dataloader(), *data.val_dataloader()]:
        assert (type(images), images.dtype, images.shape[1:]) == (Tensor, torch.float32, (3, SIDE, SIDE))
        assert (type(masks), masks.dtype, masks.shape[1:]) == (Tensor, torch.int64, (SIDE, SIDE))
        for image, mask in zip(images, masks, strict=True):
            seen.append(round(image.mean().item() * 255))
            np.testing.assert_array_equal(mask, np.asarray(Image.open(pairs / f"masks/{seen[-1]}.png")))
    assert sorted(seen) == [*range(10)]


AUGMENTATIONS: dict[str, nn.Module] = {
    "fastai": lh.AugTransforms(mult=2, flip_vert=True, max_zoom=1.5, max_lighting=0),
    "flip": v2.RandomHorizontalFlip(),
    "affine": v2.RandomAffine(30, (0.2, 0.2), (0.7, 1.3), 10, v2.InterpolationMode.BILINEAR),
    "perspective": v2.RandomPerspective(p=1),
    "composed": v2.Compose([v2.RandomResizedCrop(SIDE, (0.4, 1)), v2.RandomVerticalFlip()]),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("resize", ["crop", "squish", "pad", "none"])
def test_image_and_mask_are_augmented_alike_and_masks_keep_their_values(
    tmp_path: Path, make_pair: MakePair, name: str, resize: str
) -> None:
    for i in range(4):
        make_pair(f"data/images/{i}.png", f"data/masks/{i}.png", (70, 90 + i))
    data = _data(tmp_path / "data", valid_fraction=0, resize=resize, augmentation=AUGMENTATIONS[name])
    moved = 0
    for _ in range(3):
        images, masks = next(iter(data.train_dataloader()))
        columns, rows, inside = (images * 255).unbind(1)
        assert set(masks.unique().tolist()) <= {*range(16), 255}
        assert (masks[inside < 0.5] == 255).all()
        # pixels that are interpolated between two parts, or a part and filled pixels, have no single class
        inner = inside > 254.5
        for level in (columns, rows):
            inner &= ((level % 64 > 7) | (level < 7)) & ((level % 64 < 57) | (level > 248))
        expected = torch.tensor(_parts(columns.round().int().numpy(), rows.round().int().numpy()))
        assert inner.float().mean() > 0.2
        assert (masks == expected)[inner].all()
        moved += int((images[0] != images[1]).any())
        data.setup("fit")
    assert moved


@pytest.mark.parametrize(("ignore_index", "filled"), [(255, 255), (-100, -100), (None, 0)])
def test_padded_and_filled_pixels_have_the_ignore_index(
    tmp_path: Path, make_pair: MakePair, ignore_index: int | None, filled: int
) -> None:
    for i in range(2):
        path = make_pair(f"data/images/{i}.png", f"data/masks/{i}.png", (SIDE, SIDE // 2))[1]
        Image.fromarray(np.full((SIDE // 2, SIDE), 3, np.uint8)).save(path)
    settings = {"valid_fraction": 0.5, "ignore_index": ignore_index, "resize": "pad"}
    for resize in ("pad", "none"):
        data = _data(tmp_path / "data", **{**settings, "resize": resize})
        mask = next(iter(data.val_dataloader()))[1][0]
        assert mask[SIDE // 4 : -SIDE // 4].unique().tolist() == [3]
        assert torch.cat([mask[: SIDE // 4], mask[-SIDE // 4 :]]).unique().tolist() == [filled]
    turn = _data(tmp_path / "data", **settings, augmentation=v2.RandomRotation((90, 90)))
    mask = next(iter(turn.train_dataloader()))[1][0]
    assert mask[:, SIDE // 4 : -SIDE // 4].unique().tolist() == [3]
    assert mask[:, : SIDE // 4].unique().tolist() == [filled]


def test_void_codes_are_ignored(pairs: Path) -> None:
    data = _data(pairs, codes={str(i): i for i in range(1, 16)}, ignore=[0])
    masks = next(iter(data.val_dataloader()))[1]
    assert sorted(masks.unique().tolist()) == [*range(15), 255]
    assert (masks[0, : SIDE // 4, : SIDE // 4] == 255).all()


def test_multilabel_data_has_a_mask_per_class(tmp_path: Path, make_pair: MakePair) -> None:
    classes = np.random.default_rng(0).integers(0, 2, (3, SIDE, SIDE)).astype(np.uint8)
    for i in range(4):
        make_pair(f"data/images/{i}.png", f"data/masks/hand/{i}.png")
        for name, mask in zip(("hand", "cup", "table"), classes, strict=True):
            (tmp_path / f"data/masks/{name}").mkdir(exist_ok=True)
            Image.fromarray(mask * np.uint8(255)).save(tmp_path / f"data/masks/{name}/{i}.png")
    data = _data(tmp_path / "data", masks="masks/{class}/{stem}.png", codes=["hand", "cup", "table"])
    assert data.multilabel
    assert data.class_names == ["hand", "cup", "table"]
    masks = next(iter(data.val_dataloader()))[1]
    assert (masks.dtype, masks.shape) == (torch.float32, (1, 3, SIDE, SIDE))
    np.testing.assert_array_equal(masks[0], classes)
    masks = next(iter(data.train_dataloader()))[1]
    assert masks.shape == (3, 3, SIDE, SIDE)
    assert set(masks.unique().tolist()) == {0, 1}
    (tmp_path / "data/masks/cup/1.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 3 have none, the first .*1.png, whose mask would be .*cup/1.png"
    ):
        _data(tmp_path / "data", masks="masks/{class}/{stem}.png", codes=["hand", "cup", "table"])


def test_crops_without_scaling_are_parts_of_the_photograph(tmp_path: Path, make_pair: MakePair) -> None:
    for i in range(2):
        image, mask = make_pair(f"data/images/{i}.png", f"data/masks/{i}.png", (120, 100))
    data = _data(tmp_path / "data", resize="none", valid_fraction=0.5, augment=False, image_size=(40, 60))
    whole = torch.tensor(np.array(Image.open(image))).movedim(-1, 0) / 255
    classes = torch.tensor(np.array(Image.open(mask)))
    images, masks = next(iter(data.val_dataloader()))
    torch.testing.assert_close(images[0], whole[:, 30:70, 30:90])
    assert (masks[0] == classes[30:70, 30:90]).all()
    places = set()
    for seed in range(5):
        torch.manual_seed(seed)
        data.setup("fit")
        images, masks = next(iter(data.train_dataloader()))
        left = int((whole[0, 0] == images[0, 0, 0, 0]).int().argmax())
        top = int((whole[1, :, 0] == images[0, 1, 0, 0]).int().argmax())
        torch.testing.assert_close(images[0], whole[:, top : top + 40, left : left + 60])
        assert (masks[0] == classes[top : top + 40, left : left + 60]).all()
        places.add((top, left))
    assert len(places) > 2


@pytest.mark.parametrize(
    ("resize", "expected"), [("crop", (48, 96)), ("squish", (48, 48)), ("pad", (24, 48)), ("none", (50, 100))]
)
def test_images_to_predict_are_whole_at_the_scale_of_training(
    tmp_path: Path, make_pair: MakePair, make_image: Callable[..., Path], resize: str, expected: tuple[int, int]
) -> None:
    for i in range(2):
        make_pair(f"data/train/images/{i}.png", f"data/train/masks/{i}.png")
        make_pair(f"data/val/images/{i}.png", f"data/val/masks/{i}.png")
        make_pair(f"data/test/images/{i}.png", f"data/test/masks/{i}.png", (100, 50))
    new = [make_image(f"new/{name}.jpg", (100, 50)) for name in ("x", "y")]
    for predict_root, paths in (
        (None, [tmp_path / f"data/test/images/{i}.png" for i in range(2)]),
        (new[0].parent, new),
        (new[1], new[1:]),
    ):
        loader = _data(tmp_path / "data", resize=resize, predict_root=predict_root).predict_dataloader()
        assert loader.dataset.paths == paths
        assert [batch.shape for batch in loader] == [(1, 3, *expected)] * len(paths)


def test_images_and_masks_of_other_sizes_are_refused(tmp_path: Path, make_pair: MakePair) -> None:
    make_pair("data/images/0.png", "data/masks/0.png", (40, 30))
    make_pair("other.png", "data/masks/0.png", (30, 40))
    with pytest.raises(MaskReadError, match=r"masks/0.png .*it is 30x40 pixels, while .*images/0.png is 40x30;"):
        next(iter(_data(tmp_path / "data", valid_fraction=0).train_dataloader()))


def test_masks_have_the_size_of_the_upright_image(tmp_path: Path, make_pair: MakePair) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    mask = make_pair("data/images/0.jpg", "data/masks/0.png", (40, 30), exif=exif, quality=95, subsampling=0)[1]
    data = _data(tmp_path / "data", valid_fraction=0, augment=False, image_size=(40, 30))
    with pytest.raises(MaskReadError, match="is 30x40 once it is turned upright by its EXIF orientation: turn the"):
        next(iter(data.train_dataloader()))
    upright = np.rot90(np.asarray(Image.open(mask)), -1)
    Image.fromarray(upright.copy()).save(mask)
    images, masks = next(iter(data.train_dataloader()))
    np.testing.assert_array_equal(masks[0], upright)
    parts = _parts(*(images[0, :2] * 255).round().int().numpy())
    assert (parts == upright).mean() > 0.9


@pytest.mark.parametrize(("orientation", "size"), [(2, (40, 30)), (3, (40, 30)), (4, (40, 30)), (6, (40, 40))])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_masks_without_the_orientation_of_their_image_are_warned_of_once(
    tmp_path: Path, make_pair: MakePair, orientation: int, size: tuple[int, int], suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(3):
        mask = make_pair(f"data/images/{i}.{suffix}", f"data/masks/{i}.png", size, exif=exif)[1]
    data = _data(tmp_path / "data", valid_fraction=0)
    message = rf"images/\d.{suffix} is turned upright by its EXIF orientation, but its mask .*masks/\d.png has none"
    with pytest.warns(UserWarning, match=message) as warned:
        assert len(next(iter(data.train_dataloader()))[0]) == 3
    assert len(warned) == 1
    for mask in (tmp_path / "data/masks").iterdir():
        Image.open(mask).save(mask, exif=exif)
    next(iter(data.train_dataloader()))


def test_missing_masks_are_counted_and_named(pairs: Path) -> None:
    for i in (3, 7):
        (pairs / f"masks/{i}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 10 have none, the first .*3.png, whose mask would be .*/3\.\*"):
        _data(pairs, valid_fraction=0)
    with pytest.raises(FileNotFoundError, match=r"would be .*masks/0_P.png"):
        _data(pairs, valid_fraction=0, masks="masks/{stem}_P.png")
    with pytest.warns(UserWarning, match=r"(?s)2 of 10 train images .* no mask:.*3.png: there is no .*7.png"):
        data = _data(pairs, valid_fraction=0, on_error="skip")
    assert [path.stem for path in data.samples["train"].paths] == [*"01245689"]


def test_unusable_pairs_can_be_skipped_with_a_warning(pairs: Path, make_image: Callable[..., Path]) -> None:
    (pairs / "images/0.png").write_bytes(b"")
    (pairs / "masks/1.png").write_text("no mask")
    Image.fromarray(np.full((SIDE, SIDE), 16, np.uint8)).save(pairs / "masks/2.png")
    Image.fromarray(np.zeros((SIDE, 20), np.uint8)).save(pairs / "masks/3.png")
    data = _data(pairs, valid_fraction=0, on_error="skip")
    report = "4 of 10 .*images/0.png: the file.*masks/1.png: reading.*masks/2.png: its value 16.*masks/3.png: it is 20x"
    with pytest.warns(UserWarning, match=f"(?s){report}"):
        data.setup("fit")
    assert sum(len(images) for images, _ in data.train_dataloader()) == 6
    with pytest.raises(lh.ImageReadError, match=r"masks/\d.png to be a mask|images/0.png to be an image"):
        list(_data(pairs, valid_fraction=0).train_dataloader())


def test_double_matches_are_refused(pairs: Path, make_pair: MakePair) -> None:
    make_pair("data/images/0.jpg", "unused.png")
    with pytest.raises(ValueError, match=r"images/0.jpg and .*images/0.png share .*masks/0.png"):
        _data(pairs)
    (pairs / "images/0.jpg").unlink()
    make_pair("unused.png", "data/masks/0.tif")
    with pytest.raises(ValueError, match=r"one image 0 in .*masks, but got 0.png and 0.tif"):
        _data(pairs)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"images": "photos"}, FileNotFoundError, "`images` to be a folder, but there is none at .*photos"),
        ({"masks": "drawn"}, FileNotFoundError, "`masks` to be a folder, but there is none at .*drawn"),
        (
            {"masks": "masks/{name}.png"},
            ValueError,
            r"a pattern of {stem}, {folder} and {class}, but got 'masks/{name}",
        ),
        ({"ignore_index": 3}, ValueError, r"`ignore_index` to be no class index \(0 to 15\), but got 3"),
        ({"ignore_index": None, "ignore": [99]}, ValueError, "`ignore_index` to be a number"),
        ({"augmentation": nn.Identity()}, TypeError, "to take an image and a mask, .* but Identity does not"),
        ({"resize": "stretch"}, ValueError, "`resize`"),
    ],
)
def test_wrong_settings_are_refused(pairs: Path, settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _data(pairs, **settings)


def test_folders_without_training_images_are_refused(tmp_path: Path, make_pair: MakePair) -> None:
    make_pair("data/valid/images/0.png", "data/valid/masks/0.png")
    with pytest.raises(ValueError, match=r"a folder to train on, .*train/images, beside .*valid/images"):
        _data(tmp_path / "data")
    (tmp_path / "empty/images").mkdir(parents=True)
    (tmp_path / "empty/masks").mkdir()
    with pytest.raises(ValueError, match="but it holds no files"):
        _data(tmp_path / "empty")


def test_batches_do_not_depend_on_workers(pairs: Path) -> None:
    seen = []
    for num_workers in (0, 2):
        torch.manual_seed(0)
        data = _data(pairs, num_workers=num_workers)
        data.setup("fit")
        seen.append([*data.train_dataloader()])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("codes", "names"),
    [
        ("{zebra: 0, ant: 255}", ["zebra", "ant"]),
        ("{road: [128, 64, 128], sky: [0, 0, 0]}", ["road", "sky"]),
        ("[sky, road]", ["sky", "road"]),
        ("2", ["0", "1"]),
    ],
)
def test_settings_fit_in_a_flat_yaml(pairs: Path, codes: str, names: list[str]) -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_subclass_arguments(lh.ImageData, "data")
    ignore = "[[9, 9, 9]]" if "128" in codes else "[9]"
    config = parser.parse_string(
        f"""
        data:
          class_path: lightning_heads.data.masks.folder.MaskFolderData
          init_args: {{root: {pairs}, masks: "masks/{{stem}}.png", codes: {codes}, ignore: {ignore}, num_workers: 0}}
        """
    )
    data = parser.instantiate_classes(config).data
    assert data.class_names == names
    assert data.samples["train"].targets[0].parent == pairs / "masks"


def test_a_model_trains_and_predicts(pairs: Path, tmp_path: Path) -> None:
    data = _data(pairs, test_fraction=0.2, resize="pad")
    task = lh.TransferModule(nn.Conv2d(3, 16, 1), nn.CrossEntropyLoss(ignore_index=255), lr=0.1)
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu"
    )
    trainer.fit(task, data)
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert [out.shape for out in trainer.predict(task, data)] == [(1, 16, SIDE, SIDE)] * 2
