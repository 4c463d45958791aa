"""Finds and draws the images of an index that are most similar to query images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..data.embedding_index import EmbeddingIndex
from ..data.images.reading import find_images, read_image, warn_left_out
from ..data.transforms.resize import ResizeTo
from ..drawing.sheet import Pixels, Row, draw_sheet
from .embedder import EmbeddingConfig, build_embedder
from .embedding import embed_files

_SIDE = 160  # longer side of a picture, in pixels


@dataclass(frozen=True)
class LookAlikes:
    """A query image and the most similar images, in descending order of cosine similarity (`scores`).

    Attributes:
        query: File of the query image.
        paths: Files of the similar images.
        scores: Their cosine similarities.
        value_range: Stored pixel values that are black and white, with which the index was computed.
        max_pixels: Largest number of pixels of an image file, with which the index was computed.
    """

    query: Path
    paths: list[Path]
    scores: list[float]
    value_range: tuple[float, float] | None = None
    max_pixels: int | None = None


def look_alikes(
    index: EmbeddingIndex | str | Path,
    images: str | Path,
    k: int | None = None,
    *,
    model: nn.Module | None = None,
    device: str | torch.device | None = None,
) -> list[LookAlikes]:
    """Finds the `k` images of an index that are most similar to each query image, by cosine similarity.

    For a query that is itself in the index, the first result is the query.

    Args:
        index: An index that `embed` returned, or its file.
        images: Query image, or a folder of query images, searched recursively.
        k: Number of results per query, from 1 to the number of images in the index; by default 9, or all if fewer.
        model: The model that made the index; by default it is rebuilt from its name or checkpoint.
        device: Device of the model; see `embed`.

    Raises:
        ImageReadError: If an image cannot be read.
        ValueError: If there are no images, `k` is out of range, or the model's weights differ from those that made the
            index.
    """
    index = index if isinstance(index, EmbeddingIndex) else EmbeddingIndex.load(index)
    k = min(9, len(index)) if k is None else k
    if not 1 <= k <= len(index):
        raise ValueError(f"Expected `k` to be in 1..{len(index)}, as many as the index holds, but got {k}")
    queries = find_images(Path(images)) if Path(images).is_dir() else [Path(images)]
    if Path(images).is_dir():
        warn_left_out(Path(images))
    if not queries:
        raise ValueError(f"Expected images in {images}, but there are none")
    try:
        config = EmbeddingConfig(**index.made_by)
    except TypeError as error:
        raise ValueError(f"Expected an index that `embed` made, but its `made_by` is {index.made_by}") from error
    saved = Path(config.checkpoint) if config.checkpoint else config.encoder
    made_by = saved if model is None else model
    if made_by is None:
        raise ValueError(
            "Expected `model`, as the index was made by a model in memory, but got None; an index that was made from a "
            "name or a checkpoint needs no `model`"
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
        source = config.checkpoint or config.encoder or "a model in memory"
        raise ValueError(
            f"Expected the model that made the index, {source}, but its weights differ from those of the index; embed "
            "the folder again"
        )
    embeddings, _ = embed_files(embedder, queries, config, progress=len(queries) > 1)
    scores, indices = index.nearest(embeddings, k)
    paths = index.paths
    results = zip(queries, indices.tolist(), scores.tolist(), strict=True)
    return [
        LookAlikes(query, [paths[i] for i in rows], cosines, config.value_range, config.max_pixels)
        for query, rows, cosines in results
    ]


def draw_look_alikes(found: Sequence[LookAlikes]) -> Image.Image:
    """Draws a row for each query: the query, then the similar images, with file name and cosine similarity below.

    Raises:
        ImageReadError: If a file cannot be read, for instance because it was moved.
        ValueError: If there are no queries, or queries have different numbers of similar images.
    """
    counts = sorted({len(each.paths) for each in found})
    if len(counts) != 1:
        raise ValueError(f"Expected the same number of look-alikes for each query, but got {counts or 'no query'}")
    rows = []
    for each in found:
        captions = [f"{path}  {score:.3f}" for path, score in zip(each.paths, each.scores, strict=True)]
        pictures = [_picture(path, each) for path in (each.query, *each.paths)]
        rows.append(Row(pictures, [str(each.query), *captions]))
    return draw_sheet("look-alikes", ["query", *(str(i + 1) for i in range(counts[0]))], rows)


def _picture(path: Path, found: LookAlikes) -> Pixels:
    size = ResizeTo((_SIDE, _SIDE), "pad").scaled_size
    image = read_image(path, value_range=found.value_range, max_pixels=found.max_pixels, size=size)
    pixels: Pixels = image.permute(1, 2, 0).numpy()
    return pixels
