import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lightning_heads.data import embedding_index
from lightning_heads.data.embedding_index import EmbeddingIndex
from lightning_heads.utils import files


def _index(n: int = 50, width: int = 12, **settings: Any) -> EmbeddingIndex:
    embeddings = torch.randn(n, width, generator=torch.Generator().manual_seed(0)) * 7
    return EmbeddingIndex([f"{i}.jpg" for i in range(n)], embeddings, **settings)


@pytest.fixture(params=[2**24, 100, 1], ids=["one block", "two rows a block", "a row a block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_index, "_BLOCK", request.param)


def _check_nearest(index: EmbeddingIndex, k: int, backend: Any) -> None:
    queries = torch.randn(7, 12) * torch.logspace(-3, 3, 7)[:, None]
    scores, indices = index.nearest(queries, k, backend=backend)
    oracle = NearestNeighbors(n_neighbors=k, metric="cosine").fit(index.embeddings.numpy())
    distances, expected = oracle.kneighbors(queries.numpy())
    assert np.array_equal(indices.numpy(), expected)
    np.testing.assert_allclose(1 - scores.numpy(), distances, atol=1e-5)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("k", [1, 5, 50])
def test_nearest_equals_scikit_learns(k: int) -> None:
    _check_nearest(_index(), k, "torch")


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss")
    index = _index()
    _check_nearest(index, 5, "faiss")
    _check_nearest(index, 50, "faiss")


def test_missing_faiss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        _index().nearest(torch.ones(1, 12), 1, backend="faiss")


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("threshold", [-1, 0, 0.5, 0.98])
def test_duplicates_are_all_near_pairs(threshold: float) -> None:
    embeddings = _index().embeddings.clone()
    embeddings[30], embeddings[31] = embeddings[3] * 4, embeddings[7] + 0.03
    pairs = EmbeddingIndex([str(i) for i in range(50)], embeddings).duplicates(threshold)
    cosines = cosine_similarity(embeddings.numpy())
    expected = {(i, j) for i in range(50) for j in range(i + 1, 50) if cosines[i, j] >= threshold}
    assert len(pairs) == len(expected)
    assert {(i, j) for i, j, _ in pairs} == expected
    assert [score for *_, score in pairs] == sorted((score for *_, score in pairs), reverse=True)
    assert [score for *_, score in pairs] == pytest.approx([cosines[i, j] for i, j, _ in pairs], abs=1e-5)
    assert pairs[0][:2] == (3, 30)
    if threshold == 0.98:
        assert [pair[:2] for pair in pairs] == [(3, 30), (7, 31)]


def test_rows_are_normalized_and_unit_rows_are_unchanged() -> None:
    index = _index()
    assert torch.allclose(index.embeddings.norm(dim=1), torch.ones(50), atol=1e-6)
    assert torch.equal(EmbeddingIndex(index.names, index.embeddings).embeddings, index.embeddings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_of_any_type_become_float32(dtype: torch.dtype) -> None:
    index = EmbeddingIndex(["a", "b"], torch.tensor([[3, 4], [0, 2]], dtype=dtype, requires_grad=True))
    assert torch.allclose(index.embeddings, torch.tensor([[0.6, 0.8], [0, 1]]))
    assert not index.embeddings.requires_grad


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    names = ["a/b.jpg", 'quote".png', "Überall.png", "undecodable\udcff.jpg"]
    made_by = {"encoder": "resnet18", "image_size": [224, 224], "weights": None}
    index = EmbeddingIndex(names, torch.randn(4, 300), tmp_path / "photos", made_by)
    index.save(tmp_path / "new/index.safetensors")
    loaded = EmbeddingIndex.load(tmp_path / "new/index.safetensors")
    assert torch.equal(loaded.embeddings, index.embeddings)
    assert (loaded.names, loaded.root, loaded.made_by) == (names, tmp_path / "photos", made_by)
    assert loaded.paths[0] == tmp_path / "photos/a/b.jpg"
    # the file can be read without this class
    content = load_file(tmp_path / "new/index.safetensors")
    assert json.loads(bytes(content["names"].tolist())) == names


@pytest.mark.parametrize("broken", ["save_file", "replace"])
def test_failed_save_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "index.safetensors"
    _index(5).save(path)
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        if broken == "save_file":
            Path(args[1]).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(files if broken == "save_file" else files.os, broken, fail)
    with pytest.raises(OSError, match="no space left"):
        _index(6).save(path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def _truncated(path: Path) -> None:
    _index().save(path)
    path.write_bytes(path.read_bytes()[:-100])


def _without_names(path: Path) -> None:
    save_file({"embeddings": torch.ones(1, 2)}, path, {"format": "lightning_heads.EmbeddingIndex"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("not tensors"), "to be an index of embeddings, but"),
        (lambda path: path.write_bytes(b""), "to be an index of embeddings, but"),
        (
            lambda path: save_file({"embeddings": torch.ones(1, 2)}, path),
            "its metadata has no format lightning_heads",
        ),
        (_truncated, "to be an index of embeddings, but"),
        (_without_names, "to be an index of embeddings, but.*names"),
    ],
    ids=["text", "empty", "weights", "truncated", "without names"],
)
def test_other_files_are_refused_by_name(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "bad.safetensors"
    make(path)
    with pytest.raises(ValueError, match=rf"bad\.safetensors.*{message}"):
        EmbeddingIndex.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.safetensors"):
        EmbeddingIndex.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("names", "embeddings", "message"),
    [
        (["a", "b"], torch.ones(3, 2), r"a row for each of 2 names, but got \(3, 2\)"),
        (["a", "b"], torch.ones(2), r"a row for each of 2 names, but got \(2,\)"),
        ([], torch.ones(0, 2), r"a row for each of 0 names, but got \(0, 2\)"),
        (["a", "b", "a"], torch.ones(3, 2), "`names` to be unique, but got a 2 times"),
        (["a", "b"], torch.tensor([[1, 0], [1, torch.nan]]), "finite and other than zero, but that of b is not"),
        (["a", "b"], torch.tensor([[torch.inf, 0], [1, 1]]), "finite and other than zero, but that of a is not"),
        (["a", "b"], torch.tensor([[1.0, 0], [0, 0]]), "finite and other than zero, but that of b is not"),
    ],
)
def test_embeddings_are_checked(names: list[str], embeddings: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingIndex(names, embeddings)


@pytest.mark.parametrize(
    ("queries", "k", "backend", "message"),
    [
        (torch.ones(1, 11), 1, "torch", r"`queries` \(q, 12\), as wide as the index, but got \(1, 11\)"),
        (torch.ones(12), 1, "torch", r"`queries` \(q, 12\)"),
        (torch.ones(1, 12), 51, "torch", r"`k` to be in 1..50, as many as the index holds, but got 51"),
        (torch.ones(1, 12), 0, "torch", "`k` to be in 1..50"),
        (torch.full((1, 12), torch.nan), 1, "torch", "`queries` to be finite and other than zero, but row 0 is not"),
        (torch.ones(1, 12), 1, "annoy", "`backend` to be torch or faiss, but got 'annoy'"),
    ],
)
def test_queries_are_checked(queries: Tensor, k: int, backend: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _index().nearest(queries, k, backend=backend)


@pytest.mark.parametrize("threshold", [1.5, -1.01, torch.nan])
def test_threshold_is_checked(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"`threshold` to be a cosine, in -1\.\.1"):
        _index().duplicates(threshold)
