from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import lightning_heads as lh
from lightning_heads.data.embedding_index import EmbeddingIndex
from lightning_heads.data.pairs.dataset import DrawnPairs, nearest_of_others
from lightning_heads.data.pairs.folder import PairFolderData

COUNTS = {"train/a": 8, "train/b": 5, "train/c": 1, "valid/a": 3, "valid/b": 3, "test/b": 2, "test/d": 2}


def _write(root: Path, counts: dict[str, int]) -> list[str]:
    """Writes gray images whose gray level is their index in the list of names, which is returned."""
    names = [f"{folder}/{i}.png" for folder, count in counts.items() for i in range(count)]
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(root / name)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path / "photos", COUNTS)
    return tmp_path / "photos"


def _data(root: Path, **settings: Any) -> PairFolderData:
    return PairFolderData(root, **{"image_size": 16, "batch_size": 4, "num_workers": 0, "augment": False, **settings})


def _names(root: Path) -> list[str]:
    return [f"{folder}/{i}.png" for folder, count in COUNTS.items() for i in range(count)]


Named = tuple[str, str, bool]


def _pairs(root: Path, loader: Iterable[Any]) -> list[Named]:
    """Returns the names of both images of each pair in the batches, known by their gray level, and the target."""
    names, found = _names(root), []
    for first, second, same in loader:
        assert first.shape == second.shape == (len(same), 3, 16, 16)
        assert first.dtype == torch.float32
        assert same.dtype == torch.bool
        levels = [(images.mean(dim=(1, 2, 3)) * 255).round().long().tolist() for images in (first, second)]
        found += [(names[i], names[j], s) for i, j, s in zip(*levels, same.tolist(), strict=True)]
    return found


def _epochs(root: Path, count: int, **settings: Any) -> list[list[Named]]:
    torch.manual_seed(0)
    data = _data(root, **settings)
    data.setup("fit")
    loader: Any = data.train_dataloader()
    epochs = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        epochs.append(_pairs(root, loader))
    return epochs


def _class(name: str) -> str:
    return name.split("/")[1]


def test_a_training_epoch_pairs_each_image_once_with_a_partner_of_its_split(folder: Path) -> None:
    epochs = _epochs(folder, 20)
    for epoch in epochs:
        assert Counter(first for first, _, _ in epoch) == Counter(n for n in _names(folder) if n.startswith("train"))
    for first, second, same in [pair for epoch in epochs for pair in epoch]:
        assert second.startswith("train/")
        assert first != second
        assert same == (_class(first) == _class(second))
    partners = {n: {second for e in epochs for first, second, _ in e if first == n} for n in _names(folder)[:14]}
    assert all(len(each) > 3 for each in partners.values())


@pytest.mark.parametrize("same_fraction", [0.25, 0.5])
def test_partners_are_distributed_as_in_the_book(folder: Path, same_fraction: float) -> None:
    labels = torch.tensor([0] * 8 + [1] * 5 + [2])
    drawn = DrawnPairs(labels, same_fraction)
    torch.manual_seed(0)
    pairs = [drawn[0] for _ in range(4000)]
    assert sum(bool(pair.same) for pair in pairs) / 4000 == pytest.approx(same_fraction, abs=0.03)
    same = Counter(pair.second for pair in pairs if pair.same)
    assert sorted(same) == [1, 2, 3, 4, 5, 6, 7]
    assert max(same.values()) < 1.5 * min(same.values())
    classes = Counter(int(labels[pair.second]) for pair in pairs if not pair.same)
    assert classes[1] / (classes[1] + classes[2]) == pytest.approx(0.5, abs=0.05)
    assert classes.keys() == {1, 2}
    assert not any(drawn[13].same for _ in range(50))


def test_validation_and_test_pairs_are_fixed_and_of_their_own_images(folder: Path) -> None:
    data = _data(folder)
    for split, loader in (("valid", data.val_dataloader()), ("test", data.test_dataloader())):
        pairs = _pairs(folder, loader)
        assert [first for first, _, _ in pairs] == [name for name in _names(folder) if name.startswith(split)]
        assert all(second.startswith(split) and first != second for first, second, _ in pairs)
        assert all(same == (_class(first) == _class(second)) for first, second, same in pairs)
        assert _pairs(folder, loader) == pairs
    again = _data(folder)
    torch.manual_seed(7)
    assert _pairs(folder, again.val_dataloader()) == _pairs(folder, data.val_dataloader())
    seeds = {tuple(_pairs(folder, _data(folder, seed=seed).val_dataloader())) for seed in range(5)}
    assert len(seeds) > 1


def test_drawing_fixed_pairs_leaves_the_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    _data(folder).val_dataloader()
    assert torch.equal(torch.get_rng_state(), before)


def test_held_out_images_are_not_trained_on(tmp_path: Path) -> None:
    _write(tmp_path / "photos", {"a": 10, "b": 10, "c": 10})
    data = _data(tmp_path / "photos", valid_fraction=0.3, test_fraction=0.2)
    loader: Any = data.train_dataloader()
    trained = set()
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        for first, second, _ in loader:
            levels = torch.cat([first, second]).mean(dim=(1, 2, 3)) * 255
            trained |= set(levels.round().long().tolist())
    held_out = {
        int((image.mean() * 255).round()) for batch in data.val_dataloader() for part in batch[:2] for image in part
    }
    assert len(trained) == 15
    assert len(held_out) == 9
    assert not trained & held_out


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("workers", [2, 4])
def test_pairs_do_not_depend_on_workers(folder: Path, workers: int) -> None:
    assert _epochs(folder, 2, num_workers=workers) == _epochs(folder, 2)


def test_epochs_have_different_pairs(folder: Path) -> None:
    first, second = _epochs(folder, 2)
    assert sorted(first) != sorted(second)


def test_ranks_split_the_pairs_of_one_process(folder: Path) -> None:
    dataset = _data(folder)._dataset("train", random=True)
    alone = _pairs(folder, lh.SeededLoader(dataset, 4, seed=1))
    parts = [_pairs(folder, lh.SeededLoader(dataset, 4, seed=1, num_replicas=2, rank=rank)) for rank in range(2)]
    assert Counter(parts[0]) + Counter(parts[1]) == Counter(alone)


def test_both_images_are_augmented_independently(folder: Path) -> None:
    class Shift(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 0 + torch.rand(())

    first, second, _ = next(iter(_data(folder, augment=True, augmentation=Shift()).train_dataloader()))
    values = torch.cat([first, second])[:, 0, 0, 0]
    assert len(values.unique()) == 8
    valid = next(iter(_data(folder, augment=True, augmentation=Shift()).val_dataloader()))
    assert valid[0].max() <= 30 / 255


def test_classes_of_pairs_and_of_images(folder: Path) -> None:
    data = _data(folder)
    assert (data.num_classes, data.class_names) == (2, ["different", "same"])
    assert data.image_classes == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 4}, "Pairs of the train images cannot be drawn: Expected images of two classes or more"),
        ({"train/a": 4}, "Pairs of the train images cannot be drawn: Expected images of two classes or more"),
        ({"train/a": 1, "train/b": 1}, "Pairs of the train images .* Expected a class with two images or more"),
        ({"train/a": 2, "train/b": 1, "valid/a": 3}, "Pairs of the valid images .* two classes or more"),
        ({"train/a": 2, "train/b": 1, "valid/a": 1, "valid/b": 1}, "Pairs of the valid images .* two images or more"),
        ({"train/a": 2, "train/b": 1, "test/a": 1, "test/b": 1}, "Pairs of the test images .* two images or more"),
    ],
)
def test_images_that_give_no_pairs_are_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    _write(tmp_path / "photos", counts)
    with pytest.raises(ValueError, match=message):
        _data(tmp_path / "photos", valid_fraction=0.0 if "train/a" in counts else 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"same_fraction": 0.0}, "`same_fraction` to be between 0 and 1, but got 0.0"),
        ({"same_fraction": 1.0}, "`same_fraction` to be between 0 and 1"),
        ({"hard_negative_fraction": 1.5}, "`hard_negative_fraction` to be from 0 to 1, but got 1.5"),
        ({"hard_negative_fraction": 0.5}, "Expected `neighbors`, and no .* for `hard_negative_fraction` of 0.5"),
        ({"num_neighbors": 0}, "`num_neighbors` to be at least 1"),
    ],
)
def test_wrong_settings_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _data(folder, **settings)


def _list(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_csv_file_gives_the_validation_pairs(folder: Path) -> None:
    same = ["0", "1", "true", "False", "True", "no", "yes"]
    lines = [f"valid/a/{i % 3}.png,valid/{'ab'[i % 2]}/0.png,{same[i]}" for i in range(7)]
    data = _data(folder, pairs=_list(folder, "first,second,same", *lines))
    pairs = _pairs(folder, data.val_dataloader())
    assert [f"{first},{second}" for first, second, _ in pairs] == [line.rsplit(",", 1)[0] for line in lines]
    assert [same for _, _, same in pairs] == [False, True, True, False, True, False, True]
    assert len(_pairs(folder, data.test_dataloader())) == 4


def test_a_csv_file_gives_the_pairs_of_every_split(folder: Path) -> None:
    data = _data(
        folder,
        batch_size=2,
        pairs=_list(
            folder,
            "split,first,same,second",
            "train,train/a/0.png,1,train/a/1.png",
            "train,train/a/0.png,0,train/c/0.png",
            "train,train/b/0.png,1,train/b/2.png",
            "test,test/b/0.png,no,test/d/1.png",
            "val,valid/b/0.png,no,valid/a/1.png",
        ),
    )
    assert _pairs(folder, data.test_dataloader()) == [("test/b/0.png", "test/d/1.png", False)]
    assert _pairs(folder, data.val_dataloader()) == [("valid/b/0.png", "valid/a/1.png", False)]
    trained = _pairs(folder, data.train_dataloader())
    assert len(trained) == 2  # a last batch of one pair is dropped
    listed = {
        ("train/a/0.png", "train/a/1.png", True),
        ("train/a/0.png", "train/c/0.png", False),
        ("train/b/0.png", "train/b/2.png", True),
    }
    assert set(trained) < listed


def test_images_of_listed_validation_pairs_are_not_trained_on(tmp_path: Path) -> None:
    _write(tmp_path / "photos", {"a": 4, "b": 4})
    data = _data(tmp_path / "photos", pairs=_list(tmp_path, "first,second,same", "a/0.png,b/1.png,0"))
    assert {path.relative_to(data.root).as_posix() for path in data.samples["valid"].paths} == {"a/0.png", "b/1.png"}
    assert len(data.samples["train"].paths) == 6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("valid/a/0.png,valid/a/1.png,maybe,valid", "0, 1, false, true, no or yes in same, but got 'maybe'"),
        ("valid/a/0.png,valid/a/1.png,1,later", "train, valid or test in split, but got 'later'"),
        ("valid/a/0.png,valid/a/1.png,1", "Expected 4 cells"),
        ("valid/a/0.png,other.png,1,valid", "pairs of images of the data set, but .*other.png is not one"),
        ("train/a/0.png,valid/a/1.png,1,train", "train pairs to be of train images, but .*1.png is a valid image"),
        ("train/a/0.png,valid/a/1.png,1,valid", "valid pairs to be of valid images, but .*0.png is a train image"),
        ("test/b/0.png,train/b/0.png,1,test", "test pairs to be of test images, but .*0.png is a train image"),
    ],
)
def test_bad_lists_are_refused_by_line(folder: Path, line: str, message: str) -> None:
    (folder / "other.png").write_bytes((folder / "train/a/0.png").read_bytes())
    good = "valid/a/0.png,valid/b/0.png,0,valid"
    pairs = _list(folder, "first,second,same,split", good, line)
    with pytest.raises(ValueError, match=rf"{message}.*\(.*pairs.csv, line 3\)"):
        _data(folder, pairs=pairs)


def test_missing_lists_columns_and_images_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`pairs` to be a csv file, but there is none at none.csv"):
        _data(folder, pairs="none.csv")
    with pytest.raises(ValueError, match=r"pairs.csv to have the columns same, but it has first, second"):
        _data(folder, pairs=_list(folder, "first,second", "valid/a/0.png,valid/a/1.png"))
    pairs = _list(folder, "first,second,same", "valid/a/0.png,valid/a/9.png,1")
    with pytest.raises(FileNotFoundError, match=r"the first .*valid/a/9.png \(.*pairs.csv, line 2\)"):
        _data(folder, pairs=pairs)


def test_a_broken_image_is_left_out_with_its_pairs(folder: Path) -> None:
    (folder / "train/a/0.png").write_bytes(b"")
    (folder / "valid/a/0.png").write_bytes(b"")
    lines = ["valid/a/0.png,valid/b/0.png,0", "valid/a/1.png,valid/b/0.png,0"]
    data = _data(folder, pairs=_list(folder, "first,second,same", *lines), on_error="skip")
    with pytest.warns(UserWarning, match=r"1 of \d+ (train|valid) images are left out"):
        data.setup("fit")
    assert _pairs(folder, data.val_dataloader()) == [("valid/a/1.png", "valid/b/0.png", False)]
    trained = _pairs(folder, data.train_dataloader())
    assert len(trained) == 13 - 1  # of 13, as a last batch of one pair is dropped
    assert not any("train/a/0.png" in pair for pair in trained)
    with pytest.raises(lh.ImageReadError, match=r"train/a/0.png"):
        _pairs(folder, _data(folder).train_dataloader())


def test_predicts_the_test_pairs_or_those_of_a_csv_file(folder: Path, tmp_path: Path) -> None:
    assert _pairs(folder, _data(folder).predict_dataloader()) == _pairs(folder, _data(folder).test_dataloader())
    (folder / "new.png").write_bytes((folder / "train/b/0.png").read_bytes())
    lines = ["new.png,train/a/2.png", "train/a/2.png,valid/b/1.png"]
    loader = _data(folder, predict_pairs=_list(folder, "first,second", *lines)).predict_dataloader()
    (first, second), *rest = loader
    levels = (torch.stack([first, second])[:, :, 0, 0, 0] * 255).round().tolist()
    assert levels == [[8, 2], [2, 18]]
    assert not rest
    dataset: Any = loader.dataset
    assert dataset.paths == [
        (folder / "new.png", folder / "train/a/2.png"),
        (folder / "train/a/2.png", folder / "valid/b/1.png"),
    ]


def test_broken_images_to_predict_are_left_out_with_their_pairs(folder: Path) -> None:
    (folder / "new.png").write_bytes(b"")
    pairs = _list(folder, "first,second", "new.png,train/a/2.png", "train/a/2.png,valid/b/1.png")
    data = _data(folder, predict_pairs=pairs, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 3 predict images are left out"):
        dataset: Any = data.predict_dataloader().dataset
    assert [pair.second.name for pair in dataset.paths] == ["1.png"]


def test_no_pairs_to_predict_are_explained(tmp_path: Path) -> None:
    _write(tmp_path / "photos", {"a": 10, "b": 10})
    with pytest.raises(ValueError, match="test images or `predict_pairs`, but the data has only train, valid"):
        _data(tmp_path / "photos").predict_dataloader()


def _index(folder: Path, path: Path, names: list[str], root: Path | None = None) -> Path:
    generator = torch.Generator().manual_seed(1)
    EmbeddingIndex(names, torch.randn(len(names), 6, generator=generator), folder if root is None else root).save(path)
    return path


def test_hard_negatives_are_near_images_of_other_classes(folder: Path, tmp_path: Path) -> None:
    names = sorted(_names(folder), reverse=True)
    path = _index(folder, tmp_path / "index.safetensors", names)
    epochs = _epochs(folder, 40, neighbors=path, hard_negative_fraction=1.0, num_neighbors=2)
    embeddings = EmbeddingIndex.load(path).embeddings.numpy()
    rows = dict(zip(names, embeddings, strict=True))
    met: dict[str, set[str]] = {}
    for first, second, same in [pair for epoch in epochs for pair in epoch]:
        if not same:
            met.setdefault(first, set()).add(second)
    for first, partners in met.items():
        others = [n for n in names if n.startswith("train") and _class(n) != _class(first)]
        nearest = sorted(others, key=lambda name, row=rows[first]: -float(row @ rows[name]))[:2]
        assert partners == set(nearest)


def test_a_fraction_of_the_negatives_is_hard(folder: Path) -> None:
    labels = torch.tensor([0] * 2 + [1] * 50)
    drawn = DrawnPairs(labels, nearest=torch.full((52, 1), 7), hard_negative_fraction=0.3)
    seconds = [pair.second for pair in (drawn[0] for _ in range(3000)) if not pair.same]
    assert seconds.count(7) / len(seconds) == pytest.approx(0.3 + 0.7 / 50, abs=0.04)


def test_nearest_of_others_are_as_many_as_the_largest_class_leaves() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(600, 4), dim=1)
    labels = torch.tensor([0] * 595 + [1] * 5)
    found = nearest_of_others(embeddings, labels, 10)
    assert found.shape == (600, 5)
    assert (labels[found] != labels[:, None]).all()
    expected = (embeddings @ embeddings.T)[597, :595].argsort(descending=True)[:5]
    assert found[597].tolist() == expected.tolist()


@pytest.mark.parametrize("indexed", ["train", "moved"])
def test_an_index_of_another_folder_fits_if_its_files_are_the_same(folder: Path, tmp_path: Path, indexed: str) -> None:
    names = [name for name in _names(folder) if name.startswith("train")]
    if indexed == "train":
        path = _index(folder, tmp_path / "index.st", [n.removeprefix("train/") for n in names], folder / "train")
    else:
        path = _index(folder, tmp_path / "index.st", names, tmp_path / "gone")
    _data(folder, neighbors=path, hard_negative_fraction=0.5).train_dataloader()


def test_an_index_without_a_training_image_is_refused(folder: Path, tmp_path: Path) -> None:
    names = [name for name in _names(folder) if name not in ("train/a/3.png", "train/b/0.png")]
    data = _data(folder, neighbors=_index(folder, tmp_path / "index.st", names), hard_negative_fraction=0.5)
    with pytest.raises(ValueError, match=r"index.st, but 2 of 14 are not there, the first .*train/a/3.png"):
        data.train_dataloader()
    with pytest.raises(FileNotFoundError, match=r"none.st"):
        _data(folder, neighbors=tmp_path / "none.st", hard_negative_fraction=0.5).train_dataloader()


def test_listed_training_pairs_have_no_hard_negatives(folder: Path) -> None:
    pairs = _list(folder, "first,second,same,split", "train/a/0.png,train/a/1.png,1,train")
    with pytest.raises(ValueError, match=r"and no training pairs in `pairs`, for `hard_negative_fraction` of 0.5"):
        _data(folder, pairs=pairs, neighbors="index.st", hard_negative_fraction=0.5)


def test_predictions_name_both_files(folder: Path, tmp_path: Path) -> None:
    class Comparison(torch.nn.Module):
        num_inputs = 2

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def param_groups(self) -> list[list[torch.nn.Parameter]]:
            return [[], [self.scale]]

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return self.scale * (first - second).mean(dim=(1, 2, 3))[:, None]

    task = lh.TransferModule(Comparison(), torch.nn.MSELoss(), {})
    writer = lh.PredictionWriter(tmp_path / "out")
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", callbacks=[writer])
    trainer.predict(task, _data(folder))
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines()
    dataset: Any = _data(folder).test_dataloader().dataset
    assert [tuple(line.split(",")[:2]) for line in lines[1:]] == [(str(a), str(b)) for a, b in dataset.paths]
