from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_heads.data.masks.table import MaskTableData


@pytest.fixture
def table(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    rows = ["path,mask,edge,fold"]
    for i in range(6):
        make_image(f"photos/{i}.jpg", (20, 16))
        for kind in ("mask", "edge"):
            Image.fromarray(np.full((16, 20), i % 2, np.uint8)).save(tmp_path / f"{kind}{i}.png")
        rows.append(f"photos/{i}.jpg,mask{i}.png,edge{i}.png,{['train', 'valid', 'test'][i // 2]}")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows))
    return path


def _data(table: Path, **settings: object) -> MaskTableData:
    settings = {"codes": ["no", "yes"], "image_size": 16, "batch_size": 4, "num_workers": 0, **settings}
    return MaskTableData(table, **settings)


def test_columns_name_images_masks_and_splits(table: Path) -> None:
    data = _data(table, split="fold")
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == {"train": 2, "valid": 2, "test": 2}
    assert data.samples["test"].targets == [table.parent / "mask4.png", table.parent / "mask5.png"]
    images, masks = next(iter(data.val_dataloader()))
    assert images.shape == (2, 3, 16, 16)
    assert [mask.unique().tolist() for mask in masks] == [[0], [1]]


def test_samples_are_held_out_without_a_split_column(table: Path) -> None:
    data = _data(table, valid_fraction=0.5)
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == {"train": 3, "valid": 3}
    assert _data(table, valid_fraction=0.5).samples == data.samples


def test_several_columns_are_multilabel(table: Path) -> None:
    data = _data(table, mask=["mask", "edge"], split="fold")
    masks = next(iter(data.val_dataloader()))[1]
    assert masks.shape == (2, 2, 16, 16)
    assert masks.mean((2, 3)).tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match=r"a column for each of \['no', 'yes'\], but got \['mask'\]"):
        _data(table, mask=["mask"])


def test_wrong_tables_are_refused(table: Path) -> None:
    with pytest.raises(ValueError, match="to have the columns drawn, but it has path, mask, edge, fold"):
        _data(table, mask="drawn")
    (table.parent / "mask3.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 2 have none, the first .*3.jpg, whose mask would be .*mask3.png"
    ):
        _data(table, split="fold")
    table.write_text(table.read_text().replace("train", "test"))
    with pytest.raises(ValueError, match="to list training images, but the column fold has only test, valid"):
        _data(table, split="fold")
    (table.parent / "photos/1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 are missing, the first .*1.jpg \(.*line 3\)"):
        _data(table)
