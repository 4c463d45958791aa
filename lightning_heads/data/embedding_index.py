"""An index of embeddings of images, by which those that look alike are found."""

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

from ..utils.files import save_whole

_FORMAT = "lightning_heads.EmbeddingIndex"
_BLOCK = 2**24  # scores in memory at a time: 64 MiB


class EmbeddingIndex:
    """Embeddings of images by the files' names, on the CPU, searched by cosine.

    Rows are brought to unit length. Saved, it is a safetensors file of `embeddings` and of `names`, which are bytes of
    json there, as the metadata of such a file does not take a million names.

    Args:
        names: Paths of the files relative to `root`, with `/` on every system.
        embeddings: A row for each, `(n, d)`.
        root: Folder of the files.
        made_by: What made the embeddings, in plain values that json takes.

    Raises:
        ValueError: If names repeat, or embeddings are not a row a name, finite and other than zero.

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
            raise ValueError(f"Expected each of `names` once, but got {name} {count} times")
        self.names, self.root = [*names], Path(root)
        self.embeddings = _unit_rows("embeddings", embeddings, names)
        self.made_by = dict(made_by or {})

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the rows."""
        return [self.root / name for name in self.names]

    def nearest(
        self, queries: Tensor, k: int, *, backend: Literal["torch", "faiss"] = "torch"
    ) -> tuple[Tensor, Tensor]:
        """Returns the cosines of the `k` nearest rows to each query, from near to far, and their indices, `(q, k)`.

        Args:
            queries: Embeddings of any length, `(q, d)`.
            k: How many, from 1 to the number of rows.
            backend: What searches, exactly in either case; `faiss` is for those who have it: `pip install faiss-cpu`.

        Raises:
            ValueError: If `queries` are of another width, not finite or zero, or `k` is out of range.
            ImportError: If faiss is asked for and not installed.
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
        """Returns pairs of rows `(i, j, cosine)`, `i < j`, that are at least so near, the nearest first.

        Raises:
            ValueError: If `threshold` is no cosine.
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
        """Writes a safetensors file, which appears whole or not at all, and the folders that it needs."""
        names = torch.frombuffer(bytearray(json.dumps(self.names), "ascii"), dtype=torch.uint8)
        metadata = {"format": _FORMAT, "root": json.dumps(str(self.root)), "made_by": json.dumps(self.made_by)}
        save_whole(Path(path), {"embeddings": self.embeddings, "names": names}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingIndex":
        """Reads a file that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is something else.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"Expected an index of embeddings, but there is no file {path}")
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError("it holds something else")
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
    """Returns rows of length 1 on the CPU, those that have it already to the bit as they are."""
    rows = rows.detach().to("cpu", torch.float32)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    bad = (~(lengths.isfinite() & (lengths > 0))).flatten().nonzero().flatten().tolist()
    if bad:
        row = f"row {bad[0]}" if names is None else f"that of {names[bad[0]]}"
        raise ValueError(f"Expected `{argument}` to be finite and other than zero, but {row} is not")
    return rows / torch.where((lengths - 1).abs() < 1e-6, 1, lengths)
