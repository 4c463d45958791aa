from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_heads.data.pairs.table import PairTableData


@pytest.fixture
def table(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    """Twelve images of three classes: training has two of the classes, validation the third and one of these two."""
    rows = []
    for i in range(12):
        make_image(f"images/{i}.png", seed=i)
        kind = "cat" if i < 4 else "dog" if i < 8 else "fox"
        rows.append(f"{i}.png,{kind},{'valid' if i > 5 else 'train'}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["file,kind,fold", *rows]))
    return path


def _data(table: Path, **settings: Any) -> PairTableData:
    settings = {"root": table.parent / "images", "path": "file", "label": "kind", **settings}
    return PairTableData(table, image_size=16, batch_size=4, num_workers=0, **settings)


def _numbers(loader: Any) -> list[tuple[int, int, bool]]:
    """Returns the numbers of both images of each fixed pair, and whether they are of one class."""
    dataset = loader.dataset
    assert [bool(same) for _, _, same in dataset] == [pair.same for pair in dataset.pairs]
    return [
        (int(paths.first.stem), int(paths.second.stem), pair.same)
        for paths, pair in zip(dataset.paths, dataset.pairs, strict=True)
    ]


def test_splits_of_a_column_may_have_different_classes(table: Path) -> None:
    data = _data(table, split="fold")
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == {"train": 6, "valid": 6}
    assert data.image_classes == ["cat", "dog", "fox"]
    assert (data.num_classes, data.class_names) == (2, ["different", "same"])
    pairs = _numbers(data.val_dataloader())
    assert [first for first, _, _ in pairs] == [6, 7, 8, 9, 10, 11]
    assert all(
        second > 5 and first != second and same == ((first < 8) == (second < 8)) for first, second, same in pairs
    )
    assert sum(len(same) for _, _, same in data.train_dataloader()) == 6


def test_the_random_split_is_stratified_by_class(table: Path) -> None:
    data = _data(table, valid_fraction=0.5)
    assert sorted(data.samples["valid"].targets.tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_csv_file_gives_the_pairs_of_validation_and_of_test(table: Path) -> None:
    pairs = table.parent / "pairs.csv"
    lines = ["6.png,7.png,1,valid", "6.png,11.png,0,valid", "0.png,1.png,yes,test"]
    pairs.write_text("\n".join(["first,second,same,split", *lines]))
    data = _data(table, split="fold", pairs=pairs)
    assert _numbers(data.val_dataloader()) == [(6, 7, True), (6, 11, False)]
    assert _numbers(data.test_dataloader()) == [(0, 1, True)]
    assert sorted(int(path.stem) for path in data.samples["train"].paths) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("old", "new", "settings", "message"),
    [
        ("", "", {"label": "species"}, "to have the columns species"),
        ("3.png,cat", "3.png,", {}, r"a class in the column kind, but it is empty \(.*line 5\)"),
        ("fox", "dog", {"split": "fold"}, "Pairs of the valid images cannot be drawn: .* two classes or more"),
        ("", "", {"split": "kind"}, "train, valid or test in kind"),
    ],
)
def test_bad_tables_are_refused(table: Path, old: str, new: str, settings: dict[str, Any], message: str) -> None:
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        _data(table, **settings)


def test_missing_images_are_named(table: Path) -> None:
    (table.parent / "images/5.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 12 are missing, the first .*5.png \(.*line 7\)"):
        _data(table)
    with pytest.raises(FileNotFoundError, match="`table` to be a csv file"):
        _data(table.parent / "none.csv")
