"""The images of an index that look like others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..data import read_image
from ..data.embedding_index import EmbeddingIndex
from ..data.images.reading import find_images
from ..data.transforms.resize import ResizeTo
from ..drawing.sheet import Pixels, Row, draw_sheet
from .embedder import EmbeddingConfig, build_embedder
from .embedding import embed_files

_SIDE = 160  # longer side of a picture, in pixels


@dataclass(frozen=True)
class LookAlikes:
    """An image and those that look most like it, from near to far, with their cosines."""

    query: Path
    paths: list[Path]
    scores: list[float]


def look_alikes(
    index: EmbeddingIndex | str | Path,
    images: str | Path,
    k: int | None = None,
    *,
    model: nn.Module | None = None,
    device: str | torch.device | None = None,
) -> list[LookAlikes]:
    """Finds the `k` images of an index that look most like each of the given ones.

    An image that is itself in the index finds itself first.

    Args:
        index: What `embed` returned, or a file that it was saved to.
        images: An image, or a folder of images, searched recursively.
        k: How many, from 1 to the number of images in the index; by default 9, or all of fewer.
        model: The model that made the index; by default it is built again from its name or checkpoint.
        device: See `embed`.

    Raises:
        ImageReadError: If an image cannot be read.
        ValueError: If there are no images, `k` is out of range, or the model's weights are others than those that made
            the index.
    """
    index = index if isinstance(index, EmbeddingIndex) else EmbeddingIndex.load(index)
    k = min(9, len(index)) if k is None else k
    if not 1 <= k <= len(index):
        raise ValueError(f"Expected `k` to be in 1..{len(index)}, as many as the index holds, but got {k}")
    queries = find_images(Path(images)) if Path(images).is_dir() else [Path(images)]
    if not queries:
        raise ValueError(f"Expected images in {images}, but there are none")
    try:
        config = EmbeddingConfig(**index.made_by)
    except TypeError as error:
        raise ValueError(f"Expected an index that `embed` made, but it tells {index.made_by} of its making") from error
    lasting = Path(config.checkpoint) if config.checkpoint else config.encoder
    made_by = lasting if model is None else model
    if made_by is None:
        raise ValueError(
            "Expected `model`, as the index was made by one that was in memory, but got None; an index that a "
            "checkpoint made needs none"
        )
    height, width = config.image_size
    embedder = build_embedder(
        made_by,
        weights=config.weights if model is None else None,
        image_size=(height, width),
        channels=config.channels,
        device=device,
    )
    if embedder.fingerprint() != config.fingerprint:
        source = config.checkpoint or config.encoder or "one that was in memory"
        raise ValueError(
            f"Expected the model that made the index, {source}, but its weights are others than they were; embed the "
            "folder again"
        )
    embeddings, _ = embed_files(embedder, queries, config, progress=len(queries) > 1)
    scores, indices = index.nearest(embeddings, k)
    paths = index.paths
    found = zip(queries, indices.tolist(), scores.tolist(), strict=True)
    return [LookAlikes(query, [paths[i] for i in rows], cosines) for query, rows, cosines in found]


def draw_look_alikes(found: Sequence[LookAlikes]) -> Image.Image:
    """Draws a row for each query: the image, then those that look like it, with file and cosine below.

    Raises:
        ImageReadError: If a file is not where it was.
        ValueError: If nothing was found, or not as many for each.
    """
    counts = sorted({len(each.paths) for each in found})
    if len(counts) != 1:
        raise ValueError(f"Expected look-alikes of images, as many for each, but got {counts or 'none'}")
    rows = []
    for each in found:
        captions = [f"{path}  {score:.3f}" for path, score in zip(each.paths, each.scores, strict=True)]
        rows.append(Row([_picture(path) for path in (each.query, *each.paths)], [str(each.query), *captions]))
    return draw_sheet("look-alikes", ["query", *(str(i + 1) for i in range(counts[0]))], rows)


def _picture(path: Path) -> Pixels:
    pixels: Pixels = ResizeTo((_SIDE, _SIDE), "pad", whole=True)(read_image(path)).permute(1, 2, 0).numpy()
    return pixels
