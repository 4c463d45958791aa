from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lightning_heads as lh

HEADER = "path,kind,tags,a,b,x,fold"


@pytest.fixture
def table(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    rows = []
    for i in range(12):
        make_image(f"{i}.png")
        tags = ["", "red", "red round"][i % 3]
        rows.append(
            f"{i}.png,{'cat' if i % 2 else 'dog'},{tags},{i % 2},1,{i / 10},{['train', 'valid', 'test'][i // 5]}"
        )
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *rows]))
    return path


def _data(table: Path, **settings: object) -> lh.ImageTableData:
    return lh.ImageTableData(table, image_size=16, batch_size=4, num_workers=0, **settings)


def _edit(table: Path, line: int, old: str, new: str) -> None:
    lines = table.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    table.write_text("\n".join(lines))


def test_label_column(table: Path) -> None:
    data = _data(table, label="kind", valid_fraction=0.5)
    assert data.class_names == ["cat", "dog"]
    assert sorted(data.samples["valid"].targets.tolist()) == [0, 0, 0, 1, 1, 1]


def test_label_columns_and_separated_labels(table: Path) -> None:
    assert _data(table, labels=["a", "b"], valid_fraction=0).samples["train"].targets[:2].tolist() == [[0, 1], [1, 1]]
    data = _data(table, labels=["tags"], valid_fraction=0)
    assert data.class_names == ["red", "round"]
    assert data.samples["train"].targets[:3].tolist() == [[0, 0], [1, 0], [1, 1]]


def test_value_columns(table: Path) -> None:
    data = _data(table, values=["x"], valid_fraction=0)
    torch.testing.assert_close(data.samples["train"].targets, torch.arange(12.0)[:, None] / 10)
    assert data.class_names == ["x"]


def test_probability_columns_must_sum_to_one(table: Path) -> None:
    table.write_text(table.read_text().replace("a,b", "p,q"))
    with pytest.raises(ValueError, match=r"that sum to 1, but got \[1.0, 1.0\] .*line 3\)"):
        _data(table, probabilities=["p", "q"])


def test_split_column(table: Path) -> None:
    data = _data(table, label="kind", split="fold")
    assert {split: len(s.paths) for split, s in data.samples.items()} == {"train": 5, "valid": 5, "test": 2}


@pytest.mark.parametrize(
    ("edit", "settings", "message"),
    [
        (None, {"label": "species"}, "to have the columns species, but it has path, kind"),
        (None, {"label": "kind", "path": "file"}, "to have the columns file"),
        (None, {"label": "kind", "stratify": ["size"]}, "to have the columns size"),
        ((4, "0.2", "nan"), {"values": ["x"]}, "a number in the column x, but got 'nan' .*line 4"),
        ((4, "0.2", "tall"), {"values": ["x"]}, "a number in the column x, but got 'tall' .*line 4"),
        ((3, "cat", ""), {"label": "kind"}, "a class in the column kind, but it is empty .*line 3"),
        ((5, ",1,1,", ",2,1,"), {"labels": ["a", "b"]}, "0 or 1 in the columns a, b .*line 5"),
        (
            (2, "train", "later"),
            {"label": "kind", "split": "fold"},
            "train, valid or test in fold, but got 'later' .*line 2",
        ),
        ((8, "cat,", "fox,"), {"label": "kind", "split": "fold"}, None),
        (None, {}, "one of `label`"),
        (None, {"label": "kind", "values": ["x"]}, "one of `label`"),
    ],
)
def test_bad_tables_are_refused_by_line_and_column(table: Path, edit: object, settings: dict, message: str) -> None:
    if edit == (8, "cat,", "fox,"):
        _edit(table, 9, "cat,", "fox,")
        message = "which has no fox"
    elif edit:
        _edit(table, *edit)
    with pytest.raises(ValueError, match=message):
        _data(table, **settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,kind\n0.png", r"2 cells, one a column, but got another number \(.*line 2"),
        ("path,kind\n0.png,a,b", r"2 cells, one a column, but got another number \(.*line 2"),
        ("path,kind,kind\n0.png,a,b", "name each column once"),
    ],
)
def test_ragged_tables_are_refused(table: Path, text: str, message: str) -> None:
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        _data(table, label="kind")


def test_other_encodings_and_strings_for_lists_are_refused(table: Path) -> None:
    with pytest.raises(TypeError, match="`values` to be a list of columns, but got the string 'x'"):
        _data(table, values="x")
    table.write_bytes("path,kind\n0.png,\xe4".encode("latin-1"))
    with pytest.raises(ValueError, match="to be csv in UTF-8"):
        _data(table, label="kind")


def test_missing_images_are_counted_and_named(table: Path) -> None:
    for name in ("3.png", "7.png"):
        (table.parent / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 12 are missing, the first .*3.png \(.*line 5\)"):
        _data(table, label="kind")


def test_empty_and_missing_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`table` to be a csv file"):
        _data(tmp_path / "none.csv", label="kind")
    (tmp_path / "empty.csv").write_text(HEADER)
    with pytest.raises(ValueError, match="none below its header"):
        _data(tmp_path / "empty.csv", label="kind")
