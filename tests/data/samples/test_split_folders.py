"""Which folders are splits, classes or neither, for all data modules of folders."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import nn

import lightning_heads as lh

Fill = Callable[..., Path]
Open = Callable[..., lh.ImageData]


def _masks(root: Path, **settings: Any) -> lh.ImageData:
    settings = {"images": ".", "masks": lambda path: root.parent / "mask.png", "codes": 2, **settings}
    return lh.MaskFolderData(root, **settings)


def _restoration(root: Path, **settings: Any) -> lh.ImageData:
    return lh.RestorationData(root, degradation=nn.Identity(), **settings)


OF_CLASSES: list[Open] = [lh.ImageFolderData, lh.PairFolderData]
ALL = [*OF_CLASSES, _masks, _restoration]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Writes two images into each folder, and a mask that all images share."""

    def fill(*folders: str) -> Path:
        for folder in folders:
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            for i in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / "data" / folder / f"{i}.png")
        Image.new("L", (8, 8)).save(tmp_path / "mask.png")
        return tmp_path / "data"

    return fill


def _counts(data: lh.ImageData) -> dict[str, int]:
    return {split: len(samples.paths) for split, samples in data.samples.items()}


def _classes(data: Any) -> list[str]:
    return data.image_classes if isinstance(data, lh.PairData) else data.class_names


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(
    "names",
    [
        ("training", "validation", "testing"),
        ("Train", "Val", "Test"),
        ("TRAIN", "dev", "TESTING"),
        ("Training", "Dev", "test"),
    ],
)
def test_folders_of_splits_are_known_by_all_their_names(fill: Fill, make: Open, names: tuple[str, ...]) -> None:
    root = fill(*(f"{name}/{kind}" for name in names for kind in ("a", "b")))
    data = make(root)
    assert {split: {path.parts[-3] for path in s.paths} for split, s in data.samples.items()} == {
        split: {name} for split, name in zip(("train", "valid", "test"), names, strict=True)
    }


@pytest.mark.parametrize("make", ALL)
def test_two_folders_for_a_split_are_refused(fill: Fill, make: Open) -> None:
    root = fill("train/a", "train/b", "dev/a", "dev/b", "Validation/a", "Validation/b")
    with pytest.raises(ValueError, match=r"Expected one of .*Validation and .*dev, but both are there"):
        make(root)


@pytest.mark.parametrize("make", ALL)
def test_siblings_of_train_that_are_no_splits_are_listed(fill: Fill, make: Open) -> None:
    root = fill("train/a", "train/b", "extra/a", "hold_out/b", "unlabeled")
    (root / "notes").mkdir()
    (root / "notes/read me.txt").write_text("no images")
    with pytest.raises(ValueError, match=r"beside .*data/train, but got extra, hold_out, unlabeled;"):
        make(root)


@pytest.mark.parametrize("make", [lh.ImageFolderData, _masks, _restoration])
def test_images_to_predict_may_lie_beside_the_splits(fill: Fill, make: Open) -> None:
    root = fill("train/a", "train/b", "new")
    assert _counts(make(root, valid_fraction=0, predict_root=root / "new")) == {"train": 4}


def test_files_that_are_used_may_lie_beside_the_splits(fill: Fill) -> None:
    root = fill("train/a", "train/b", "test/a", "test/b", "queries", "targets/train/a", "targets/train/b")
    fill("targets/test/a", "targets/test/b")
    (root / "pairs.csv").write_text("first,second\nqueries/0.png,targets/train/a/0.png")
    lh.PairFolderData(root, valid_fraction=0, predict_pairs=root / "pairs.csv")
    with pytest.raises(ValueError, match="but got queries;"):
        lh.RestorationData(root, targets=root / "targets")
    for masks in ("../targets/train/{folder}/{stem}.png", lambda path: root / "targets/train/a" / path.name):
        with pytest.raises(ValueError, match="but got queries;"):
            lh.MaskFolderData(root, images=".", masks=masks, codes=2, valid_fraction=0)


def test_unlabeled_images_in_the_test_folder_can_be_predicted(fill: Fill) -> None:
    root = fill("train/a", "train/b", "test")
    with pytest.raises(ValueError, match=r"its images lie in .*test itself; pass unlabeled images as `predict_root`"):
        lh.ImageFolderData(root)
    data = lh.ImageFolderData(root, valid_fraction=0, predict_root=root / "test", num_workers=0)
    assert _counts(data) == {"train": 4}
    assert len(data.predict_dataloader().dataset) == 2


def test_a_folder_of_unlabeled_images_named_after_a_split_is_no_class(fill: Fill) -> None:
    root = fill("cat", "dog", "test")
    with pytest.raises(ValueError, match=r"a folder to train on, .*train, beside .*test"):
        lh.ImageFolderData(root, predict_root=root / "test")


@pytest.mark.parametrize("make", OF_CLASSES)
@pytest.mark.parametrize("layout", ["", "train/"])
def test_classes_may_be_called_like_splits(fill: Fill, make: Open, layout: str) -> None:
    names = ["Test", "bus", "train", "valid"]
    assert _classes(make(fill(*(f"{layout}{name}" for name in names)), valid_fraction=0)) == names


@pytest.mark.parametrize("make", OF_CLASSES)
def test_folders_that_may_be_splits_or_classes_are_refused(fill: Fill, make: Open) -> None:
    with pytest.raises(ValueError, match=r"its images lie in .*train itself"):
        make(fill("train", "test"))
    with pytest.raises(ValueError, match=r"beside .*data/train, but got bus"):
        make(fill("train/old", "bus"))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("depth", ["", "vision/"])
def test_a_folder_of_several_data_sets_is_refused(fill: Fill, make: Open, depth: str) -> None:
    root = fill(*(f"{depth}{folder}" for folder in ("pets/train/a", "pets/train/b", "pets/val/a", "cars/a", "cars/b")))
    with pytest.raises(ValueError, match=r"folders of splits in .*data itself, but .*pets has train, val"):
        make(root)


def test_the_folders_in_a_single_class_folder_are_named(fill: Fill) -> None:
    with pytest.raises(ValueError, match=r"two classes or more in .*data, but got \['pets'\]; if .*, pass .*data/pets"):
        lh.ImageFolderData(fill("pets/a", "pets/b").parent / "data")


@pytest.mark.parametrize("make", OF_CLASSES)
def test_classes_may_have_folders_in_them(fill: Fill, make: Open) -> None:
    root = fill("bus/2020", "bus/2021", "rail/train", "rail/tram", "rail")
    assert _classes(make(root, valid_fraction=0)) == ["bus", "rail"]


@pytest.mark.parametrize("make", ALL)
def test_system_hidden_and_empty_folders_are_skipped(fill: Fill, make: Open) -> None:
    root = fill("a", "b", "__MACOSX", "__MACOSX/a", ".cache", "a/@eaDir", "lightning_logs/pictures")
    for name in ("empty", "valid", "nested/empty/.git"):
        (root / name).mkdir(parents=True)
    (root / "empty/.DS_Store").write_bytes(b"0")
    (root / "empty/Thumbs.db").write_bytes(b"0")
    data = make(root, valid_fraction=0)
    assert _counts(data) == {"train": 4}
    if make in OF_CLASSES:
        assert _classes(data) == ["a", "b"]


def test_a_class_of_files_that_are_no_images_is_named(fill: Fill) -> None:
    root = fill("a", "b")
    (root / "c").mkdir()
    (root / "c/0.xyz").write_bytes(b"0")
    with pytest.raises(ValueError, match="there are none of c"):
        lh.ImageFolderData(root)


@pytest.mark.parametrize("make", ALL)
def test_what_is_found_is_logged(fill: Fill, make: Open, caplog: pytest.LogCaptureFixture) -> None:
    root = fill("train/cat", "train/dog", "train/dog/more", "val/cat", "val/dog")
    with caplog.at_level(logging.INFO):
        make(root)
    (text,) = [record.getMessage() for record in caplog.records if "Found" in record.getMessage()]
    assert text.startswith(f"Found 6 train and 4 valid images in {root}")
    assert ("of 2 classes: cat (4), dog (6)" in text) == (make in OF_CLASSES)


def test_many_classes_are_logged_in_part(fill: Fill, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        lh.ImageFolderData(fill(*(f"{i:03}" for i in range(60))), valid_fraction=0)
    assert "Found 120 train images" in caplog.text
    assert "of 60 classes: 000 (2), 001 (2), " in caplog.text
    assert "and 30 more" in caplog.text


@pytest.mark.parametrize("kind", ["{split}/images", "images/{split}"])
def test_masks_on_either_level_have_the_same_splits(fill: Fill, kind: str) -> None:
    """Masks in a folder of their own, with images in `root/<split>/images` or in `root/images/<split>`."""
    root = fill(*(kind.format(split=split) for split in ("Training", "Validation")))
    fill(*(kind.format(split=split).replace("images", "masks") for split in ("Training", "Validation")))
    assert _counts(lh.MaskFolderData(root, codes=2)) == {"train": 2, "valid": 2}
    fill(kind.format(split="more"))
    with pytest.raises(ValueError, match=r"beside .*Training, but got more"):
        lh.MaskFolderData(root, codes=2)


def test_masks_may_lie_beside_the_splits(fill: Fill) -> None:
    root = fill("train", "train_masks")
    data = lh.MaskFolderData(root, images=".", masks="../train_masks/{stem}.png", codes=2, valid_fraction=0)
    assert _counts(data) == {"train": 2}


def test_images_that_are_all_masks_are_named_so(fill: Fill) -> None:
    root = fill("images/a")
    for masks in ("images", lambda path: path.with_name(f"{1 - int(path.stem)}.png")):
        with pytest.raises(ValueError, match=r"images in .*images that are no masks, but by `masks` all 2 are masks"):
            lh.MaskFolderData(root, masks=masks, codes=2)
