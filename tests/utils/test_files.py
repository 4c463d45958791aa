"""Locks of files that several runs would make."""

import logging
import threading
import time
from pathlib import Path

import pytest

from lightning_heads.utils import files as whole_file
from lightning_heads.utils.files import locked


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


def test_waiting_processes_ask_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is in a collective meanwhile, which has a time limit."""
    monkeypatch.setattr(whole_file, "_ASK_EVERY", 0.01)
    answers = iter([False, False, True])
    with locked(tmp_path / "features.safetensors", lambda acquire: next(answers)):
        assert next(answers, None) is None
