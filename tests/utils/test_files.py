"""Atomic replacement of files, and locks between runs that write the same file."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightning_heads.utils import files
from lightning_heads.utils.files import locked, printable, replacing, save_picture, save_tensors


def _fail_halfway(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("disk full")


def _save_no_tensor(path: Path) -> None:
    save_tensors(path, {"x": "no tensor"})  # type: ignore[dict-item]


def _save_cmyk(path: Path) -> None:
    save_picture(Image.new("CMYK", (2, 2)), path)


@pytest.mark.parametrize("write", [_fail_halfway, _save_no_tensor, _save_cmyk])
def test_a_failing_writer_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises((RuntimeError, ValueError, OSError)):
        write(path)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/notes.txt"
    with replacing(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert [*path.parent.iterdir()] == [path]


def test_tensors_and_pictures_are_written_to_new_folders(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a/tensors.safetensors", {"x": torch.arange(3)}, {"kind": "test"})
    assert load_file(tmp_path / "a/tensors.safetensors")["x"].tolist() == [0, 1, 2]
    save_picture(Image.new("RGB", (4, 3), "red"), tmp_path / "b/picture.png")
    with Image.open(tmp_path / "b/picture.png") as picture:
        assert (picture.format, picture.size, picture.getpixel((0, 0))) == ("PNG", (4, 3), (255, 0, 0))


def test_a_second_run_waits_for_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, order = tmp_path / "new/features.safetensors", []

    def second() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join(timeout=10)
    assert order == ["first", "second"]
    assert "features.safetensors" in caplog.text


def test_waiting_ranks_retry_until_the_lock_is_acquired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts no rank is in a collective, which has a time limit."""
    monkeypatch.setattr(files, "_RETRY_EVERY", 0.01)
    answers = iter([False, False, True])
    with locked(tmp_path / "features.safetensors", lambda acquire: next(answers)):
        assert next(answers, None) is None


def test_names_that_are_not_utf_8_are_printable() -> None:
    assert printable(Path(os.fsdecode(b"caf\xe9")) / "K\u00fche.png") == "caf\\udce9/K\u00fche.png"
