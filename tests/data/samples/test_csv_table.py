"""Tables as people write them: with blanks, blank lines, quoted cells and booleans, for all data modules of tables."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lightning_heads as lh

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table, and six images and masks that it may list."""
    for i in range(6):
        Image.new("L", (8, 8)).save(tmp_path / f"{i}.png")

    def write(text: str) -> Path:
        (tmp_path / "table.csv").write_text(text)
        return tmp_path / "table.csv"

    return write


def _images(table: Path, **settings: Any) -> lh.ImageTableData:
    return lh.ImageTableData(table, **{"valid_fraction": 0.0, "num_workers": 0, **settings})


def test_blanks_around_cells_are_no_part_of_them(write: Write) -> None:
    table = write(
        'path , label, fold\n0.png,cat,train\n1.png, cat , Training\n 2.png,"dog ",TRAIN\n3.png, "dog",train \n'
        "4.png,\tdog\t, Val\n5.png,cat,testing\n"
    )
    data = _images(table, label="label", split="fold")
    assert data.class_names == ["cat", "dog"]
    assert data.samples["train"].targets.tolist() == [0, 0, 1, 1]
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == {"train": 4, "valid": 1, "test": 1}
    pairs = lh.PairTableData(table, valid_fraction=0)
    assert pairs.image_classes == ["cat", "dog"]
    masks = lh.MaskTableData(write("path, mask\n0.png, 1.png \n2.png , 3.png"), codes=2, valid_fraction=0)
    assert [path.name for path in masks.samples["train"].targets] == ["1.png", "3.png"]


@pytest.mark.parametrize("separator", [",", ", ", " , "])
def test_blanks_around_separators_are_no_part_of_labels(write: Write, separator: str) -> None:
    data = _images(
        write('path,tags\n0.png,"cat, dog"\n1.png,"dog ,cat"\n2.png,"cat,"\n3.png, "sea lion , dog"\n4.png,'),
        labels=["tags"],
        separator=separator,
    )
    assert data.class_names == ["cat", "dog", "sea lion"]
    assert data.samples["train"].targets.tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_blank_may_be_the_separator_and_a_tab_the_delimiter(write: Write) -> None:
    data = _images(write("path\ttags\n0.png\t cat  dog\n1.png\tdog "), labels=["tags"], delimiter="\t")
    assert data.samples["train"].targets.tolist() == [[1, 1], [0, 1]]
    data = _images(write("path tag\n0.png cat\n1.png dog"), label="tag", delimiter=" ")
    assert data.samples["train"].targets.tolist() == [0, 1]


def test_numbers_may_be_booleans(write: Write) -> None:
    table = write("path,a,b\n0.png,True,FALSE\n1.png,false, true\n2.png,1,0.0\n3.png,no,yes")
    expected = [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert _images(table, labels=["a", "b"]).samples["train"].targets.tolist() == expected
    assert _images(table, probabilities=["a", "b"]).samples["train"].targets.tolist() == expected
    assert _images(table, values=["b", "a"]).samples["train"].targets.tolist() == [row[::-1] for row in expected]
    with pytest.raises(ValueError, match=r"a number in the column a, but got 'maybe' \(.*line 2\)"):
        _images(write("path,a,b\n0.png,maybe,True"), labels=["a", "b"])


def test_one_column_of_true_and_false_is_one_class(write: Write) -> None:
    data = _images(write("path,broken\n0.png,True\n1.png,False"), labels=["broken"])
    assert data.class_names == ["broken"]
    assert data.samples["train"].targets.tolist() == [[1], [0]]
    data = _images(write("path,broken\n0.png,True\n1.png,False"), label="broken")
    assert data.class_names == ["False", "True"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("is_valid", {"train": 2, "valid": 1}),
        ("valid", {"train": 2, "valid": 1}),
        ("Is_Test", {"train": 2, "test": 1}),
        ("train", {"train": 1, "valid": 2}),
    ],
)
def test_a_split_may_be_a_column_of_booleans(write: Write, column: str, expected: dict[str, int]) -> None:
    """fastai's `valid_col` is such a column; the column's name tells which split is true."""
    data = _images(write(f"path,x,{column}\n0.png,1,False\n1.png,2,True\n2.png,3,0"), values=["x"], split=column)
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == expected
    with pytest.raises(ValueError, match=r"train, valid or test in fold, but got 'True' \(.*line 2\)"):
        _images(write("path,x,fold\n0.png,1,True"), values=["x"], split="fold")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\npath,label,x\n0.png,a,1\n\n\n1.png,b,{}\n", 6),
        ('path,label,x\n0.png,"a\nfirst\n",1\n1.png,b,3\n2.png,b,{}\n', 6),
        ("path,label,x\r\n0.png,a,1\r\n   \r\n1.png,b,{}\r\n", 4),
        ('path,label,x\n0.png,a,1\n, ,\n1.png,"b\n\n\n",{}\n,,\n', 4),
    ],
)
def test_errors_name_the_line_at_which_a_row_begins(write: Write, text: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"but got 'tall' \(.*table.csv, line {line}\)"):
        _images(write(text.format("tall")), values=["x"])
    with pytest.raises(ValueError, match=rf"3 cells, one a column, but got another number \(.*line {line}\)"):
        _images(write(text.format("2,3")), values=["x"])
    assert _images(write(text.format(2)), values=["x"]).samples["train"].targets[-1] == 2


def test_errors_of_pairs_and_missing_files_name_the_line(write: Write) -> None:
    table = write('path,label\n\n0.png,"a\nb"\n9.png,c\n')
    for make in (lh.PairTableData, _images):
        with pytest.raises(FileNotFoundError, match=r"9.png \(.*table.csv, line 5\)"):
            make(table, label="label")
    table = write("path,label\n0.png,a\n1.png,a\n2.png,b\n\n0.png,b\n")
    with pytest.raises(ValueError, match=r"0.png is listed twice \(.*line 2 and .*line 6\)"):
        lh.PairTableData(table)
    pairs = table.with_name("pairs.csv")
    pairs.write_text("first,second,same\n\n0.png,1.png,2\n")
    with pytest.raises(ValueError, match=r"but got '2' \(.*pairs.csv, line 3\)"):
        lh.PairTableData(write("path,label\n0.png,a\n1.png,a\n2.png,b\n"), pairs=pairs)


def test_tables_are_read_as_the_csv_module_reads_them(write: Write) -> None:
    cells = random.Random(0).choices(["a", "b c", 'say "x"', "two\nlines", "x,y", "1"], k=6)
    table = write("")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *([f"{i}.png", cell] for i, cell in enumerate(cells))])
    data = _images(table, label="label")
    assert [data.class_names[i] for i in data.samples["train"].targets] == cells


def test_classes_are_indexed_without_comparing_each_with_all() -> None:
    from lightning_heads.data.images.table import classes_of
    from lightning_heads.data.samples.csv_table import Table

    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    names = [f"{i:04}" for i in np.random.default_rng(0).permutation(2000) % 1000]
    rows: Any = [{"label": Name(name)} for name in names]
    class_names, targets = classes_of(Table(Path("table.csv"), rows, [*range(2000)]), "label")
    expected_names, expected = np.unique(names, return_inverse=True)
    assert class_names == expected_names.tolist()
    assert targets.tolist() == expected.tolist()
    assert Name.compared < 20_000


def test_many_separated_labels_are_indexed(write: Write) -> None:
    rows = [random.Random(i).sample(range(300), k=i % 4) for i in range(6)]
    lines = [f"{i}.png,{' '.join(f'{label:03}' for label in row)}" for i, row in enumerate(rows)]
    data = _images(write("\n".join(["path,tags", *lines])), labels=["tags"])
    expected = [[float(int(name) in row) for name in data.class_names] for row in rows]
    assert data.samples["train"].targets.tolist() == expected
