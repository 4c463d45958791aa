"""Pretrained weights that cannot be downloaded."""

import socket
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest

import lightning_heads as lh
from lightning_heads.encoders.timm.hub import check_weights_reachable


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The attempted connections, each of which fails; no weights are cached."""
    made: list[Any] = []

    def refuse(*address: Any, **_: Any) -> NoReturn:
        made.append(address)
        raise OSError("no network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    return made


@pytest.mark.parametrize("name", ["test_resnet", "torchvision/squeezenet1_1", "hf-hub:timm/test_resnet.r160_in1k"])
def test_a_failed_download_says_what_to_pass_after_one_attempt(name: str, attempts: list[Any]) -> None:
    with pytest.raises(OSError, match=f"weights of {name}, .*pass `weights` with a local file") as caught:
        lh.Encoder(name)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert len(attempts) < 5  # the Hub's client alone would try each of two files seven times


def test_other_errors_are_not_taken_for_failed_downloads(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        lh.Encoder(f"local-dir:{tmp_path}/none")
    assert "download" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is none at"):
        lh.Encoder("test_resnet", weights=tmp_path / "none.pth")


def test_cached_and_local_weights_need_no_connection(monkeypatch: pytest.MonkeyPatch, attempts: list[Any]) -> None:
    check_weights_reachable({"source": "local-dir", "hf_hub_id": "timm/x"})
    check_weights_reachable({"url": "https://example.org/x.pth"})
    cached = {("a/b", "x.safetensors", "v1"): "file"}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, name, revision: cached.get((repo, name, revision))
    )
    check_weights_reachable({"hf_hub_id": "a/b@v1", "hf_hub_filename": "x.bin"})
    assert not attempts
    with pytest.raises(ConnectionError, match=r"a/b/.*x\.bin: .*no network"):
        check_weights_reachable({"hf_hub_id": "a/b", "hf_hub_filename": "x.bin"})


def test_random_weights_need_no_connection(attempts: list[Any]) -> None:
    lh.Encoder("test_resnet", pretrained=False)
    assert not attempts
