"""Embeds a folder of images into an index."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data import ImageReadError
from ..data.embedding_index import EmbeddingIndex
from ..data.images.datamodule import Resize
from ..data.images.dataset import ImageDataset
from ..data.images.pixels import check_value_range
from ..data.images.reading import find_images, warn_left_out
from ..data.transforms.resize import ResizeTo
from ..encoders.encoder import check_images
from ..utils.modules import eval_mode
from ..utils.plain import plain_values, size_pair
from .embedder import Embedder, EmbeddingConfig, build_embedder, is_checkpoint

_Sample = tuple[int, Any]  # index, then the image or the error of reading it


def embed(
    model: str | Path | nn.Module,
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] = 224,
    resize: Resize = "crop",
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> EmbeddingIndex:
    """Computes the embeddings of every image below a folder.

    The index stores the settings, so that `look_alikes` embeds queries in the same way.

    Args:
        model: The name of an architecture, whose pretrained encoder is used; a task's checkpoint, as a `Path` or as a
            string that ends in `.ckpt`; or an encoder, or a model or task that has one. For an `ImageEmbedder`,
            embeddings are its predictions; for all others, the global average pooling of the encoder's last feature
            map. What `torch.compile` returned is the same as the module that it was given, and runs uncompiled.
        folder: Folder of images, searched recursively.
        weights: Local file with the weights of an architecture given by name; see `Encoder`.
        image_size: Height and width that images are resized to, in pixels.
        resize: Resize method; see `ResizeTo`.
        channels: 1 to read images as grayscale, 3 as RGB, 4 as RGBA; by default as many as the encoder takes.
        value_range: Stored pixel values that are black and white, the same for every file; by default the range of each
            file's data type; see `read_image`.
        max_pixels: Largest number of pixels of an image file; by default Pillow's limit; see `read_image`.
        batch_size: Images per batch.
        num_workers: Worker processes that read images; by default one per CPU, at most eight, and none for one batch.
        device: Device to move the model to; by default a given model stays where it is, and one that is built here is
            moved to the accelerator if there is one.
        on_error: Whether an image that cannot be read raises an error (`raise`), or is reported and skipped (`skip`).
        progress: Whether to show a progress bar.

    Raises:
        ImageReadError: If an image cannot be read and `on_error` is `raise`.
        TypeError: If the model has no encoder.
        ValueError: If the folder has no images, none can be read, images of the first batch are not in about 0..1, or
            the checkpoint's task class is unknown.
    """
    folder = Path(folder)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"Expected `on_error` to be raise or skip, but got {on_error!r}")
    size = size_pair(image_size)
    paths = find_images(folder)
    warn_left_out(folder)
    if not paths:
        raise ValueError(f"Expected images in {folder}, but there are none")
    embedder = build_embedder(model, weights=weights, image_size=size, channels=channels, device=device)
    config = EmbeddingConfig(
        encoder=model if isinstance(model, str) and not is_checkpoint(model) else None,
        weights=None if weights is None else str(Path(weights).resolve()),
        checkpoint=str(Path(model).resolve()) if is_checkpoint(model) else None,
        image_size=size,
        resize=resize,
        channels=embedder.encoder.in_channels if channels is None else channels,
        fingerprint=embedder.fingerprint(),
        value_range=check_value_range(value_range),
        max_pixels=max_pixels,
    )
    embeddings, errors = embed_files(embedder, paths, config, batch_size, num_workers, on_error, progress)
    if errors:
        listed = "\n".join(f"  {error.path}: {error.reason}" for error in errors.values())
        warnings.warn(f"{len(errors)} of {len(paths)} images are left out:\n{listed}", stacklevel=2)
    names = [path.relative_to(folder).as_posix() for i, path in enumerate(paths) if i not in errors]
    return EmbeddingIndex(names, embeddings, folder.resolve(), plain_values(asdict(config)))


def embed_files(
    embedder: Embedder,
    paths: Sequence[Path],
    config: EmbeddingConfig,
    batch_size: int = 64,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> tuple[Tensor, dict[int, ImageReadError]]:
    """Returns embeddings `(n, d)` of the readable files, in order, and the errors of the others by index.

    Raises:
        ImageReadError: If a file cannot be read and `on_error` is `raise`.
        ValueError: If no file can be read.
    """
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, 8) if len(paths) > batch_size else 0
    images = ImageDataset(
        paths,
        None,
        size=ResizeTo(config.image_size, config.resize),
        channels=config.channels,
        value_range=config.value_range,
        max_pixels=config.max_pixels,
    )
    # its own generator, so that the loader draws no seed from the global one
    loader = DataLoader(
        _ImagesOrErrors(images), batch_size, num_workers=num_workers, collate_fn=_collate, generator=torch.Generator()
    )
    embeddings: list[Tensor] = []
    errors: dict[int, ImageReadError] = {}
    bar = tqdm(desc="embedding images", total=len(paths), unit="image", disable=not progress)
    with bar, eval_mode(embedder), torch.inference_mode():
        for batch, unreadable in loader:
            if unreadable and on_error == "raise":
                raise unreadable[min(unreadable)]
            if len(batch):
                if not embeddings:
                    check_images(embedder, batch)
                embeddings.append(embedder(batch.to(embedder.encoder.mean)).float().cpu())
            errors.update(unreadable)
            bar.update(len(batch) + len(unreadable))
    if not embeddings:
        raise ValueError(f"Expected images that can be read, but none of {len(paths)} can")
    return torch.cat(embeddings), errors


class _ImagesOrErrors(Dataset[_Sample]):
    """Returns the error in place of an image that cannot be read; raised in a worker, it would lose its type."""

    def __init__(self, images: ImageDataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> _Sample:
        try:
            return index, self.images[index]
        except ImageReadError as error:
            return index, error


def _collate(samples: Sequence[_Sample]) -> tuple[Tensor, dict[int, ImageReadError]]:
    images = [image for _, image in samples if isinstance(image, Tensor)]
    errors = {index: error for index, error in samples if isinstance(error, ImageReadError)}
    return torch.stack(images) if images else torch.empty(0), errors
