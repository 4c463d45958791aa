"""File names in both Unicode normalizations: as macOS writes them, and as other systems do."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lightning_heads as lh
from lightning_heads.data.samples.folders import find_file

FORMS = [("NFC", "NFD"), ("NFD", "NFC")]
NAMES = ["Bär/Möwe", "Bär/Füße", "Bär/Ölung", "Zoë/ñandú", "Zoë/Über"]


def _write(folder: Path, form: str, suffix: str = ".png") -> list[Path]:
    paths = [folder / f"{unicodedata.normalize(form, name)}{suffix}" for name in NAMES]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path)
    return paths


@pytest.mark.parametrize(("image", "mask"), FORMS)
@pytest.mark.parametrize(
    "masks",
    [
        "masks",
        "masks/{folder}/{stem}.gif",
        "{class}/{folder}/{stem}.gif",
        lambda path: path.parents[2] / "masks" / path.parent.name / f"{path.stem}.gif",
    ],
)
def test_masks_of_the_other_form_are_found(tmp_path: Path, image: str, mask: str, masks: Any) -> None:
    paths, found = _write(tmp_path / "images", image), _write(tmp_path / "masks", mask, ".gif")
    codes: Any = ["masks"] if "class" in str(masks) else 2
    samples = lh.MaskFolderData(tmp_path, masks=masks, codes=codes, valid_fraction=0).samples["train"]
    targets = [target[0] if isinstance(target, tuple) else target for target in samples.targets]
    assert dict(zip(samples.paths, targets, strict=True)) == dict(zip(paths, found, strict=True))


@pytest.mark.parametrize(("image", "target"), FORMS)
def test_targets_of_the_other_form_are_found(tmp_path: Path, image: str, target: str) -> None:
    paths, found = _write(tmp_path / "in", image), _write(tmp_path / "out", target, ".tif")
    samples = lh.RestorationData(tmp_path / "in", targets=tmp_path / "out", valid_fraction=0).samples["train"]
    assert dict(zip(samples.paths, samples.targets, strict=True)) == dict(zip(paths, found, strict=True))


@pytest.mark.parametrize(("written", "listed"), FORMS)
def test_tables_may_list_files_in_the_other_form(tmp_path: Path, written: str, listed: str) -> None:
    images, masks = _write(tmp_path / "images", written), _write(tmp_path / "masks", written)
    rows = [f"images/{name}.png,masks/{name}.png,{name.split('/')[0]}" for name in NAMES]
    table = tmp_path / "table.csv"
    table.write_text(unicodedata.normalize(listed, "\n".join(["path,mask,label", *rows])), "utf-8")
    data = lh.MaskTableData(table, codes=2, valid_fraction=0)
    assert (data.samples["train"].paths, data.samples["train"].targets) == (images, masks)
    assert lh.ImageTableData(table, label="label", valid_fraction=0).samples["train"].paths == images
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(unicodedata.normalize(listed, f"first,second,same\nimages/{NAMES[0]}.png,images/{NAMES[1]}.png,1"))
    data = lh.PairTableData(table, pairs=pairs, valid_fraction=0, test_fraction=0)
    assert data.listed["valid"][0].paths == (images[0], images[1])


@pytest.mark.parametrize("make", [lh.ImageFolderData, lh.PairFolderData])
def test_class_names_in_both_forms_are_one_class(tmp_path: Path, make: Callable[..., Any]) -> None:
    for split, form in (("train", "NFC"), ("valid", "NFD")):
        _write(tmp_path / split, form)
        _write(tmp_path / split, form, ".tif")
    data = make(tmp_path)
    assert (data.image_classes if isinstance(data, lh.PairData) else data.class_names) == ["Bär", "Zoë"]
    assert data.samples["valid"].targets.tolist() == data.samples["train"].targets.tolist() == [0] * 6 + [1] * 4


def test_names_in_an_index_may_be_of_the_other_form(tmp_path: Path) -> None:
    """As of a folder that was indexed on macOS and copied."""
    _write(tmp_path / "photos", "NFC")
    names = [f"{unicodedata.normalize('NFD', name)}.png" for name in NAMES]
    lh.EmbeddingIndex(names, torch.eye(len(names)), tmp_path / "gone").save(tmp_path / "index.safetensors")
    settings: Any = {"neighbors": tmp_path / "index.safetensors", "hard_negative_fraction": 0.5, "num_workers": 0}
    data = lh.PairFolderData(tmp_path / "photos", valid_fraction=0, batch_size=2, **settings)
    assert len(data.train_dataloader()) == 2


def test_labels_in_both_forms_are_one_class(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("L", (8, 8)).save(tmp_path / f"{i}.png")
    labels = ["Bär", unicodedata.normalize("NFD", "Bär"), "Zoë Bär", unicodedata.normalize("NFD", "Zoë")]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *(f"{i}.png,{labels[i]}" for i in range(4))]), "utf-8")
    data = lh.ImageTableData(tmp_path / "table.csv", labels=["label"], valid_fraction=0)
    assert data.class_names == ["Bär", "Zoë"]
    assert data.samples["train"].targets.tolist() == [[1, 0], [1, 0], [1, 1], [0, 1]]


def test_a_file_is_found_below_folders_of_the_other_form(tmp_path: Path) -> None:
    for outer, inner in FORMS:
        path = tmp_path / unicodedata.normalize(outer, "Bär") / unicodedata.normalize(inner, "Zoë")
        path.mkdir(parents=True)
        for form in ("NFC", "NFD"):
            assert find_file(
                tmp_path / unicodedata.normalize(form, "Bär") / unicodedata.normalize(form, "Zoë")
            ).exists()
    missing = tmp_path / "Bär" / "none" / "Möwe.png"
    assert find_file(missing) == missing


def test_a_target_that_is_missing_is_named_as_before(tmp_path: Path) -> None:
    _write(tmp_path / "in", "NFD")
    _write(tmp_path / "out", "NFC")[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"a target for .*in/.*, but .*out has no image .*M.*we of any suffix"):
        lh.RestorationData(tmp_path / "in", targets=tmp_path / "out")
