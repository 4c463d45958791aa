"""A folder of images as an index of embeddings."""

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
from ..data.images.reading import find_images
from ..data.transforms.resize import ResizeTo
from ..utils.modules import eval_mode
from .embedder import Embedder, EmbeddingConfig, build_embedder, is_checkpoint

_Sample = tuple[int, Any]  # an image, or why it cannot be read


def embed(
    model: str | Path | nn.Module,
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    image_size: int | tuple[int, int] = 224,
    resize: Resize = "crop",
    channels: int | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> EmbeddingIndex:
    """Embeds every image below a folder.

    The index remembers what made it, so that `look_alikes` can embed a query alike.

    Args:
        model: An architecture's name, for its pretrained encoder; a task's checkpoint, as a `Path` or by a name that
            ends in `.ckpt`; or an encoder, or a model or task that has one. An `ImageEmbedder` gives its own
            embeddings, all else the average of the encoder's last feature map.
        folder: The folder, searched recursively.
        weights: A local file with the weights of an architecture given by name; see `Encoder`.
        image_size: Height and width that images are brought to, in pixels.
        resize: How; see `ResizeTo`.
        channels: 1 to read images as grayscale, 3 as RGB, 4 with transparency; by default as the encoder takes them.
        batch_size: Images a batch.
        num_workers: Worker processes that read; by default one a processor, at most eight, and none for one batch.
        device: Where to move the model; by default it stays, or, built here, goes to the accelerator if there is one.
        on_error: Whether an image that cannot be read stops it, or is reported and left out.
        progress: Whether to show a progress bar.

    Raises:
        ImageReadError: If an image cannot be read.
        TypeError: If the model has no encoder.
        ValueError: If the folder holds no images, or none that can be read, or a checkpoint is of no known task.
    """
    folder = Path(folder)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"Expected `on_error` to be raise or skip, but got {on_error!r}")
    size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
    paths = find_images(folder)
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
    )
    embeddings, errors = embed_files(embedder, paths, config, batch_size, num_workers, on_error, progress)
    if errors:
        listed = "\n".join(f"  {error.path}: {error.reason}" for error in errors.values())
        warnings.warn(f"{len(errors)} of {len(paths)} images are left out:\n{listed}", stacklevel=2)
    names = [path.relative_to(folder).as_posix() for i, path in enumerate(paths) if i not in errors]
    return EmbeddingIndex(names, embeddings, folder.resolve(), asdict(config))


def embed_files(
    embedder: Embedder,
    paths: Sequence[Path],
    config: EmbeddingConfig,
    batch_size: int = 64,
    num_workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
) -> tuple[Tensor, dict[int, ImageReadError]]:
    """Returns embeddings `(n, d)` of the files that can be read, in order, and the errors of others by index.

    Raises:
        ImageReadError: If one cannot be read and `on_error` says so.
        ValueError: If none can.
    """
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, 8) if len(paths) > batch_size else 0
    images = ImageDataset(paths, None, channels=config.channels, size=ResizeTo(config.image_size, config.resize))
    # with a generator of its own it draws nothing from the global one
    loader = DataLoader(
        _Readable(images), batch_size, num_workers=num_workers, collate_fn=_collate, generator=torch.Generator()
    )
    embeddings: list[Tensor] = []
    errors: dict[int, ImageReadError] = {}
    bar = tqdm(desc="embedding images", total=len(paths), unit="image", disable=not progress)
    with bar, eval_mode(embedder), torch.inference_mode():
        for batch, unreadable in loader:
            if unreadable and on_error == "raise":
                raise unreadable[min(unreadable)]
            if len(batch):
                embeddings.append(embedder(batch.to(embedder.encoder.mean)).float().cpu())
            errors.update(unreadable)
            bar.update(len(batch) + len(unreadable))
    if not embeddings:
        raise ValueError(f"Expected images that can be read, but none of {len(paths)} can")
    return torch.cat(embeddings), errors


class _Readable(Dataset[_Sample]):
    """Gives an error in place of an image that cannot be read: raised in a worker, it would lose its type."""

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
