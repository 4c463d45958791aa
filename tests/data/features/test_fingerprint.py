"""What the fingerprint of an object depends on, and what it ignores."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.callbacks.feature_cache.image_source import ImageSource
from lightning_heads.data.features.fingerprint import _CODE_FOLDERS, _code_and_versions, _source_files, fingerprint
from lightning_heads.data.images.dataset import ImageDataset
from lightning_heads.utils.files import file_stamps
from tests.helpers import run_processes


class OtherDataset(ImageDataset):
    """Might read images in another way."""


class Scaled(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _encoder(**settings: Any) -> lh.Encoder:
    torch.manual_seed(0)
    return lh.Encoder("test_resnet", pretrained=False, **settings)


def _fingerprints() -> tuple[str, str, list[str]]:
    """Returns fingerprints of equal objects, and the elements of a set in the order of this process."""
    module = nn.Identity()
    module.names = {f"name {i}" for i in range(20)}  # type: ignore[assignment]
    return fingerprint(_encoder(), lh.AugTransforms(), "a" * 2, 0.5), fingerprint(module), [*module.names]


def test_equal_objects_have_equal_fingerprints_in_another_process(tmp_path: Path) -> None:
    """Sets too, whose order depends on the hash seed of the process."""
    found = run_processes(_fingerprints, 1, tmp_path)
    assert found is not None
    assert found[0][:2] == _fingerprints()[:2]
    assert found[0][2] != _fingerprints()[2]


def test_mode_hooks_and_memory_format_do_not_count() -> None:
    encoder = _encoder()
    before = fingerprint(encoder)
    encoder.eval().requires_grad_(False)
    encoder.register_forward_hook(lambda *args: None)
    encoder.to(memory_format=torch.channels_last)
    assert fingerprint(encoder) == before


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_vit", "test_convnext", "torchvision/resnet18"])
def test_encoders_of_all_kinds_have_a_fingerprint(name: str) -> None:
    assert len(fingerprint(lh.Encoder(name, pretrained=False))) == 32


def _change_weight(encoder: lh.Encoder) -> None:
    next(encoder.parameters()).data[0] += 1e-6


def _change_buffer(encoder: lh.Encoder) -> None:
    next(value for name, value in encoder.named_buffers() if name.endswith("running_var"))[0] += 1e-6


def _change_attribute(encoder: lh.Encoder) -> None:
    next(module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)).eps *= 2


@pytest.mark.parametrize("change", [_change_weight, _change_buffer, _change_attribute, lambda e: e.to(torch.float64)])
def test_weights_buffers_attributes_and_dtype_count(change: Callable[[lh.Encoder], object]) -> None:
    encoder = _encoder()
    before = fingerprint(encoder)
    change(encoder)
    assert fingerprint(encoder) != before


@pytest.mark.parametrize(
    "other", [{"normalize": False}, {"in_channels": 1}, {"image_size": 96}, {"hypercolumns": True}], ids=str
)
def test_settings_of_an_encoder_count(other: dict[str, Any]) -> None:
    torch.manual_seed(0)
    name = "test_vit" if "image_size" in other else "test_resnet"
    encoders = []
    for settings in ({}, other):
        torch.manual_seed(0)
        encoders.append(lh.Encoder(name, pretrained=False, **settings))
    assert fingerprint(encoders[0]) != fingerprint(encoders[1])


def test_transforms_count_by_settings() -> None:
    found = [
        Scaled(1.0),
        Scaled(2.0),
        lh.AugTransforms(),
        lh.AugTransforms(max_rotate=11),
        v2.ColorJitter(0.1),
        v2.Compose([v2.ColorJitter(0.1)]),
        nn.Sequential(Scaled(1.0)),
        len,
        None,
    ]
    assert len({fingerprint(each) for each in found}) == len(found)


def test_source_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for name, factor in (("a", 2), ("b", 3), ("c", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"def double(x):\n    return {factor} * x\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / name)
            prints.append(fingerprint(importlib.import_module("mine").double))
        del sys.modules["mine"]
    assert prints[0] == prints[2] != prints[1]


def test_code_without_a_source_file_counts() -> None:
    """As in a notebook."""
    prints = []
    for factor in (2, 3):
        typed: dict[str, Any] = {"nn": nn, "__name__": "typed"}
        exec(f"class Aug(nn.Module):\n    def forward(self, x):\n        return {factor} * x", typed)
        module = ModuleType("typed")
        vars(module).update(typed)
        sys.modules["typed"] = module
        prints += [fingerprint(typed["Aug"]()), fingerprint(typed["Aug"]())]
        del sys.modules["typed"]
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_libraries_and_the_code_of_this_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [fingerprint()]
    monkeypatch.setattr(torchvision, "__version__", "0.0")
    _code_and_versions.cache_clear()
    found.append(fingerprint())
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"other" if path.name == "reading.py" else b"")
    _code_and_versions.cache_clear()
    found.append(fingerprint())
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"")
    _code_and_versions.cache_clear()
    found.append(fingerprint())
    monkeypatch.undo()
    _code_and_versions.cache_clear()
    assert len({*found}) == 4
    assert fingerprint() == found[0]


def test_every_source_file_of_images_and_features_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(lh.__file__).parent
    files = _source_files(_CODE_FOLDERS)
    assert {path for folder in _CODE_FOLDERS for path in (root / folder).rglob("*.py")} == {*files}
    assert len(files) > 80
    read, found = Path.read_bytes, {_code_and_versions.__wrapped__()}
    for changed in files:
        monkeypatch.setattr(Path, "read_bytes", lambda path, at=changed: read(path) + (b"#" if path == at else b""))
        found.add(_code_and_versions.__wrapped__())
    assert len(found) == len(files) + 1


def test_a_folder_without_source_files_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected source files in .*data/reading, but there are none"):
        _source_files(["data", "data/reading"])


def test_folders_below_the_tasks_count_or_do_not_compute_images_and_features() -> None:
    """A folder that the cache imports from counts, unless images and features do not depend on it."""
    others = {"callbacks", "drawing", "losses", "metrics", "optim"}
    root = Path(lh.__file__).parent
    folders = {path.name for path in root.iterdir() if path.is_dir() and path.name != "__pycache__"}
    below_tasks = folders - {"lr_finder", "tasks", "search", "inference", "interpretation", "interop", "cli"}
    assert below_tasks == {folder for folder in _CODE_FOLDERS if "/" not in folder} | others


def test_frozen_parameters_do_not_count() -> None:
    model = lh.ImageModel("test_resnet", 2, pretrained=False)
    before = fingerprint(model.encoder)
    lh.freeze_to(model, -1, norm="eval")
    assert fingerprint(model.encoder) == before
    lh.unfreeze(model)
    assert fingerprint(model.encoder) == before


def test_the_class_of_a_data_set_counts(make_image: Callable[..., Path]) -> None:
    size = v2.Resize((8, 8))
    paths = [make_image("a.png")]
    datasets = [kind(paths, None, channels=3, size=size) for kind in (ImageDataset, ImageDataset, OtherDataset)]
    found = [fingerprint(ImageSource(dataset, 1, 0).key()) for dataset in datasets]
    assert found[0] == found[1] != found[2]


def test_objects_that_cannot_be_pickled_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected objects that can be pickled, .*lambda"):
        fingerprint(v2.Lambda(lambda x: x))


def test_files_are_stamped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    (before,) = file_stamps([path])
    assert before[:2] == (str(path), 3)
    path.write_text("four")
    assert file_stamps([path, tmp_path / "b.txt"]) == [
        (str(path), 4, path.stat().st_mtime_ns),
        (str(tmp_path / "b.txt"), -1, -1),
    ]
