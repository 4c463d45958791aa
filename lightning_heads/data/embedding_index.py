"""Index of image embeddings, for finding similar images and near duplicates."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from torch import Tensor

from ..utils.files import save_tensors

_FORMAT = "lightning_heads.EmbeddingIndex"
_BLOCK = 2**24  # scores in memory at a time: 64 MiB


class EmbeddingIndex:
    """Embeddings of image files by name, on the CPU, searched by cosine similarity.

    Rows are normalized to unit length. The index is saved as a safetensors file of the tensors `embeddings` and
    `names`; the latter holds the names as json bytes, as the metadata of such a file cannot hold a million of them.

    Args:
        names: Paths of the files relative to `root`, with `/` on every system.
        embeddings: One row per name, `(n, d)`.
        root: Folder of the files.
        made_by: How the embeddings were computed, in values that json can represent.

    Raises:
        ValueError: If names repeat, there is not one row per name, or a row is not finite or is zero.

    >>> index = EmbeddingIndex(["a.jpg", "b.jpg"], torch.eye(2))
    >>> scores, indices = index.nearest(torch.tensor([[3.0, 4.0]]), k=2)
    >>> [index.names[i] for i in indices[0]], scores
    (['b.jpg', 'a.jpg'], tensor([[0.8000, 0.6000]]))
    """

    def __init__(
        self,
        names: Sequence[str],
        embeddings: Tensor,
        root: str | Path = ".",
        made_by: Mapping[str, Any] | None = None,
    ) -> None:
        if embeddings.ndim != 2 or len(embeddings) != len(names) or not embeddings.numel():
            raise ValueError(
                f"Expected `embeddings` (n, d), a row for each of {len(names)} names, but got {tuple(embeddings.shape)}"
            )
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(f"Expected `names` to be unique, but got {name} {count} times")
        self.names, self.root = [*names], Path(root)
        self.embeddings = _unit_rows("embeddings", embeddings, names)
        self.made_by = dict(made_by or {})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> list[Path]:
        """Paths of the files, in the order of the rows."""
        return [self.root / name for name in self.names]

    def nearest(
        self, queries: Tensor, k: int, *, backend: Literal["torch", "faiss"] = "torch"
    ) -> tuple[Tensor, Tensor]:
        """Returns the cosines of the `k` nearest rows to each query, the nearest first, and their indices, `(q, k)`.

        Args:
            queries: Embeddings of any norm, `(q, d)`.
            k: Number of rows per query, from 1 to the number of rows.
            backend: Library that searches, exactly in either case; `faiss` needs `pip install faiss-cpu`.

        Raises:
            ValueError: If `queries` have another width, are not finite or zero, or `k` or `backend` is not valid.
            ImportError: If `backend` is `faiss`, which is not installed.
        """
        width = self.embeddings.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"Expected `queries` (q, {width}), as wide as the index, but got {tuple(queries.shape)}")
        if not 1 <= k <= len(self):
            raise ValueError(f"Expected `k` to be in 1..{len(self)}, as many as the index holds, but got {k}")
        if backend not in ("torch", "faiss"):
            raise ValueError(f"Expected `backend` to be torch or faiss, but got {backend!r}")
        queries = _unit_rows("queries", queries)
        if backend == "faiss":
            scores, indices = (torch.from_numpy(found) for found in self._faiss.search(queries.numpy(), k))
        else:
            blocks = torch.split(queries, max(_BLOCK // len(self), 1))
            found = [torch.topk(block @ self.embeddings.T, k) for block in blocks]
            scores, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores.clamp(-1, 1), indices

    def duplicates(self, threshold: float = 0.98) -> list[tuple[int, int, float]]:
        """Returns pairs of rows `(i, j, cosine)`, `i < j`, with a cosine of at least `threshold`, the nearest first.

        Raises:
            ValueError: If `threshold` is not in -1..1.
        """
        if not -1 <= threshold <= 1:
            raise ValueError(f"Expected `threshold` to be a cosine, in -1..1, but got {threshold}")
        pairs: list[tuple[int, int, float]] = []
        size = max(_BLOCK // len(self), 1)
        for start in range(0, len(self), size):
            scores = self.embeddings[start : start + size] @ self.embeddings[start:].T
            near = (scores >= threshold).triu(diagonal=1).nonzero(as_tuple=True)
            values = scores[near].clamp(-1, 1).tolist()
            rows, columns = ((indices + start).tolist() for indices in near)
            pairs += zip(rows, columns, values, strict=True)
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))

    def save(self, path: str | Path) -> None:
        """Writes the index to a safetensors file atomically, and creates missing parent folders."""
        names = torch.frombuffer(bytearray(json.dumps(self.names), "ascii"), dtype=torch.uint8)
        metadata = {"format": _FORMAT, "root": json.dumps(str(self.root)), "made_by": json.dumps(self.made_by)}
        save_tensors(Path(path), {"embeddings": self.embeddings, "names": names}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingIndex":
        """Reads a file that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not an index, or is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"Expected an index of embeddings, but there is no file {path}")
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError(f"its metadata has no format {_FORMAT}")
                names = json.loads(file.get_tensor("names").numpy().tobytes())
                root, made_by = json.loads(metadata["root"]), json.loads(metadata["made_by"])
                return cls(names, file.get_tensor("embeddings"), root, made_by)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise ValueError(f"Expected {path} to be an index of embeddings, but: {error}") from error

    @cached_property
    def _faiss(self) -> Any:
        try:
            faiss = import_module("faiss")
        except ImportError as error:
            raise ImportError("`backend='faiss'` needs faiss: pip install faiss-cpu") from error
        flat = faiss.IndexFlatIP(self.embeddings.shape[1])
        flat.add(self.embeddings.numpy())
        return flat


def _unit_rows(argument: str, rows: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """Returns float32 rows of unit length on the CPU; rows that have it already stay bit-identical."""
    rows = rows.detach().to("cpu", torch.float32)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    bad = (~(lengths.isfinite() & (lengths > 0))).flatten().nonzero().flatten().tolist()
    if bad:
        row = f"row {bad[0]}" if names is None else f"that of {names[bad[0]]}"
        raise ValueError(f"Expected `{argument}` to be finite and other than zero, but {row} is not")
    return rows / torch.where((lengths - 1).abs() < 1e-6, 1, lengths)
