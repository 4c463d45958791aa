import shutil
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

import lightning_heads as lh


def _data(root: Path, **settings: object) -> lh.ImageFolderData:
    return lh.ImageFolderData(root, image_size=24, batch_size=4, num_workers=0, **settings)


def test_one_folder_is_split_by_fraction(class_folder: Path) -> None:
    data = _data(class_folder, valid_fraction=0.2, test_fraction=0.1)
    assert data.class_names == ["bright", "dark"]
    assert data.num_classes == 2
    sizes = {split: len(samples.paths) for split, samples in data.samples.items()}
    assert sizes == {"train": 14, "valid": 4, "test": 2}
    everything = [path for samples in data.samples.values() for path in samples.paths]
    assert len(set(everything)) == 20
    again = _data(class_folder, valid_fraction=0.2, test_fraction=0.1)
    assert again.samples["valid"].paths == data.samples["valid"].paths


def test_batches_are_floats_in_0_to_1_with_their_class(class_folder: Path) -> None:
    images, targets = next(iter(_data(class_folder).val_dataloader()))
    assert images.shape == (4, 3, 24, 24)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert [int(level > 0.5) for level in images.mean((1, 2, 3))] == [1 - int(t) for t in targets]


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_split_folders_determine_the_splits(tmp_path: Path, make_image: Callable[..., Path], valid: str) -> None:
    for split, count in (("train", 4), (valid, 2), ("test", 1)):
        for name in ("a", "b"):
            for i in range(count):
                make_image(f"data/{split}/{name}/{i}.jpg")
    data = _data(tmp_path / "data")
    assert {split: len(s.paths) for split, s in data.samples.items()} == {"train": 8, "valid": 4, "test": 2}


def test_classes_that_training_lacks_are_named(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    for path in ("train/a/0.png", "train/b/0.png", "valid/a/0.png", "valid/c/0.png"):
        make_image(f"data/{path}")
    with pytest.raises(ValueError, match=r"among those of training \(a, b\), but it has c"):
        _data(tmp_path / "data")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`root` to be a folder, but there is none"):
        _data(tmp_path / "none")
    (tmp_path / "empty/a").mkdir(parents=True)
    with pytest.raises(ValueError, match="but it holds no files"):
        _data(tmp_path / "empty")
    (tmp_path / "empty/a/notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"but it holds files with \.txt"):
        _data(tmp_path / "empty")


def test_images_outside_class_folders_are_refused_with_advice(make_image: Callable[..., Path]) -> None:
    folder = make_image("flat/0.jpg").parent
    with pytest.raises(ValueError, match=r"its images lie in .*flat itself; pass unlabeled images as `predict_root`"):
        _data(folder)


def test_missing_test_images_are_explained(class_folder: Path) -> None:
    with pytest.raises(
        ValueError, match="only train, valid; add a folder or `split` named test, or set `test_fraction`"
    ):
        _data(class_folder).test_dataloader()


def test_one_class_is_refused(class_folder: Path) -> None:
    shutil.rmtree(class_folder / "dark")
    with pytest.raises(ValueError, match="two classes or more"):
        _data(class_folder)


def test_an_unreadable_image_raises_by_default(class_folder: Path) -> None:
    bad = class_folder / "dark" / "bad.png"
    bad.write_text("no image")
    with pytest.raises(lh.ImageReadError, match=str(bad)):
        list(_data(class_folder, valid_fraction=0.0).train_dataloader())


def test_unreadable_images_can_be_skipped_with_a_warning(class_folder: Path) -> None:
    for name in ("bad0.png", "bad1.png"):
        (class_folder / "dark" / name).write_bytes(b"")
    data = _data(class_folder, valid_fraction=0.0, on_error="skip")
    with pytest.warns(
        UserWarning, match=r"(?s)2 of 22 train images are left out:.*bad0.png: the file is empty.*bad1.png"
    ):
        data.setup("fit")
    assert len(data.samples["train"].paths) == len(data.samples["train"].targets) == 20
    assert sum(len(batch) for batch, _ in data.train_dataloader()) == 20


def test_unlabeled_images_can_be_predicted(class_folder: Path, make_image: Callable[..., Path]) -> None:
    new = [make_image(f"new/{name}.png") for name in ("x", "y", "deep/z")]
    data = _data(class_folder, predict_root=new[0].parent)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    predictions = torch.cat(trainer.predict(task, data))
    assert predictions.shape == (3, 2)
    torch.testing.assert_close(predictions.sum(1), torch.ones(3))
    assert sorted(data.predict_dataloader().dataset.paths) == sorted(new)


def test_augmentation_can_be_replaced_or_left_out(class_folder: Path) -> None:
    assert isinstance(_data(class_folder).augmentation, lh.AugTransforms)
    black = torch.nn.Threshold(2.0, 0.0)
    images, _ = next(iter(_data(class_folder, augmentation=black).train_dataloader()))
    assert images.max() == 0
    assert _data(class_folder, augment=False).augmentation is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_error": "ignore"}, "`on_error` to be raise or skip"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"resize": "stretch"}, "crop, squish or pad"),
        ({"valid_fraction": 1.0}, "less than 1"),
    ],
)
def test_wrong_settings_are_refused(class_folder: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lh.ImageFolderData(class_folder, **settings)


def test_split_folders_without_train_are_refused(class_folder: Path, make_image: Callable[..., Path]) -> None:
    make_image("photos/test/bright/0.png")
    with pytest.raises(ValueError, match=r"a folder to train on, .*train, beside .*test"):
        _data(class_folder)


def test_classes_without_training_images_are_named(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    for path in ("train/a/0.png", "train/b/0.png", "valid/a/0.png", "valid/c/0.png"):
        make_image(f"data/{path}")
    (tmp_path / "data/train/c").mkdir()
    (tmp_path / "data/train/c/notes.txt").write_text("x")
    with pytest.raises(ValueError, match="there are none of c"):
        _data(tmp_path / "data")


def test_hidden_folders_are_left_out_and_links_followed(class_folder: Path, make_image: Callable[..., Path]) -> None:
    make_image("photos/dark/.ipynb_checkpoints/0.png")
    elsewhere = make_image("elsewhere/UPPER.PNG")
    (class_folder / "dark" / "link").symlink_to(elsewhere.parent)
    (class_folder / "dark" / "loop").symlink_to(class_folder / "dark")
    data = _data(class_folder, valid_fraction=0.0)
    assert len(data.samples["train"].paths) == 21


def test_no_training_batch_has_one_image(class_folder: Path) -> None:
    for batch_size in (3, 19, 20, 64):
        data = lh.ImageFolderData(
            class_folder, image_size=16, batch_size=batch_size, num_workers=0, valid_fraction=0.0, augment=False
        )
        sizes = [len(images) for images, _ in data.train_dataloader()]
        assert min(sizes) > 1
        assert sum(sizes) >= 19
