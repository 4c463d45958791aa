"""Feature rows in memory and in memory-mapped files."""

import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_heads.data.features import storage
from lightning_heads.data.features.storage import FeatureFile, FeatureRows, load_features
from tests.helpers import run_processes

SHAPE = (2, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_file_holds_what_was_written(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.rand(SHAPE).to(dtype)
    file, memory = FeatureFile(tmp_path / "a.safetensors", SHAPE, dtype), FeatureRows(SHAPE, dtype)
    for rows in (file, memory):
        for view in range(2):
            rows.write(view, torch.tensor([4, 0]), values[view, [4, 0]])
        views, indices = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([1, 1, 2, 2, 3, 3])
        rows.write(views, indices, values[views, indices])
        rows.flush()
        assert torch.equal(rows.features, values)
    file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert torch.equal(load_features(tmp_path / "a.safetensors"), values)
    loaded = load_file(tmp_path / "a.safetensors")  # safetensors' own reader
    assert torch.equal(loaded["features"], values)
    assert loaded["features"].dtype == dtype


def test_an_unfinished_file_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rows = FeatureFile(path, SHAPE, torch.float32)
    rows.write(0, torch.tensor([1]), torch.ones(1, 3))
    rows.flush()
    rows.write(1, torch.tensor([2]), torch.ones(1, 3))  # not flushed: it does not count
    with pytest.raises(RuntimeError, match=r"Expected all rows of .*a.safetensors to be written, but 9 are missing"):
        rows.finish()
    assert not path.exists()
    again = FeatureFile(path, SHAPE, torch.float32)
    assert again.written.nonzero().tolist() == [[0, 1]]
    assert torch.equal(again.features[0, 1], torch.ones(3))
    other = FeatureFile(path, (1, 5, 3), torch.float32)  # an unfinished file of another shape is not used
    assert not other.written.any()


def test_a_row_counts_once_its_values_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = FeatureFile(tmp_path / "a.safetensors", SHAPE, torch.float32)
    rows.write(0, torch.tensor([0]), torch.ones(1, 3))
    assert not rows.written.any()
    monkeypatch.setattr(storage, "_FLUSH_EVERY", 0.0)
    rows.write(0, torch.tensor([1]), torch.ones(1, 3))
    assert rows.written.sum() == 2


@pytest.mark.parametrize("can_preallocate", [True, False])
def test_a_full_disk_is_an_error_that_leaves_no_file(
    can_preallocate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_preallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Expected space for 7\.6 MiB of features, but: File too large"):
            FeatureFile(tmp_path / "a.safetensors", (1, 1000, 2000), torch.float32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]


def test_without_preallocation_the_file_has_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    rows = FeatureFile(tmp_path / "a.safetensors", (1, 1000, 300), torch.float32)
    assert not rows.features.any()
    assert not rows.written.any()


@pytest.mark.parametrize("in_file", [False, True])
def test_values_beyond_the_range_of_a_type_are_refused(in_file: bool, tmp_path: Path) -> None:
    shape = (1, 2, 3)
    rows = (
        FeatureFile(tmp_path / "a.safetensors", shape, torch.float16) if in_file else FeatureRows(shape, torch.float16)
    )
    with pytest.raises(ValueError, match=r"within the range of torch.float16, but got 100000; `dtype=.bfloat16.` has"):
        rows.write(0, torch.tensor([0]), torch.full((1, 3), 1e5))
    assert not rows.written.any()


def _write_and_read(path: Path) -> float:
    """Returns by how many MB of anonymous memory the process grows."""

    def allocated() -> float:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024

    rows = FeatureFile(path, (1, 50_000, 2048), torch.float32)
    before = allocated()
    for part in torch.arange(50_000).split(500):
        rows.write(0, part, part[:, None].float().expand(-1, 2048))
    rows.flush()
    rows.finish()
    features = load_features(path)
    total = sum(features[0, i].mean().item() for i in range(0, 50_000, 10))
    assert total == sum(range(0, 50_000, 10)), total
    return allocated() - before


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Features of 400 MB are written and read with less than 50 MB of anonymous memory."""
    grown = run_processes(_write_and_read, 1, tmp_path, tmp_path / "a.safetensors")
    assert grown is not None
    assert grown[0] < 50
