"""Builds, and rebuilds from plain settings, the model that computes embeddings of images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ..data.images.datamodule import Resize
from ..encoders import Encoder
from ..models import SiameseModel
from ..tasks import TransferModule
from ..tasks.checkpoint import imported_class, read_checkpoint, saved_class_path
from ..tasks.metric_learning import ImageEmbedder
from ..utils.modules import uncompiled, uncompiled_name


@dataclass(frozen=True)
class EmbeddingConfig:
    """Settings with which the embeddings of an index were computed, as plain values.

    Attributes:
        encoder: Name of the architecture, if one was given.
        weights: Absolute path of its weights, if they came from a local file.
        checkpoint: Absolute path of the task's checkpoint, if one was given. If there is neither `encoder` nor
            `checkpoint`, the model was passed as a module.
        image_size: Height and width that images were resized to, in pixels.
        resize: Resize method; see `ResizeTo`.
        channels: Number of channels of the images.
        fingerprint: Digest of the model's weights; see `Embedder.fingerprint`.
        value_range: Stored pixel values that are black and white; None for the range of each file's data type.
        max_pixels: Largest number of pixels of an image file; None for Pillow's limit.
    """

    encoder: str | None
    weights: str | None
    checkpoint: str | None
    image_size: tuple[int, int]
    resize: Resize
    channels: int
    fingerprint: str
    value_range: tuple[float, float] | None = None
    max_pixels: int | None = None


class Embedder(nn.Module):
    """Maps images in 0..1, `(b, c, h, w)`, to embeddings `(b, d)`.

    For an `ImageEmbedder` these are its predictions; for a `SiameseModel` or `PairClassifier` with the comparison
    `cosine`, the embeddings that it compares; for any other model with an encoder, the global average pooling of the
    encoder's last feature map.

    Args:
        model: An encoder, or a model or task that has one.

    Raises:
        TypeError: If the model has no encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model = uncompiled(model)
        self.encoder = _encoder(model)
        self.task = model if isinstance(model, ImageEmbedder) else None
        inner = uncompiled(getattr(model, "model", model))
        self.pairs = inner if isinstance(inner, SiameseModel) and inner.comparison == "cosine" else None

    def forward(self, images: Tensor) -> Tensor:
        if self.task is not None:
            return self.task.predict(images)
        if self.pairs is not None:
            return self.pairs.embeddings(self.pairs.features(images))
        out: Tensor = self.encoder(images).mean(dim=(2, 3))
        return out

    def fingerprint(self) -> str:
        """Returns a digest of all weights and buffers; embeddings are comparable only if it is the same."""
        digest = hashlib.blake2b(digest_size=16)
        owner = self.encoder if self.task is None else self.task.model
        for name, value in (self.pairs or owner).state_dict().items():
            digest.update(uncompiled_name(name).encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def build_embedder(
    model: str | Path | nn.Module,
    *,
    weights: str | Path | None,
    image_size: tuple[int, int],
    channels: int | None,
    device: str | torch.device | None,
) -> Embedder:
    """Builds the model if it is given by name or checkpoint, and moves it to the device; see `embed`."""
    if weights is not None and (isinstance(model, nn.Module) or is_checkpoint(model)):
        raise ValueError(
            "Expected `weights` only with an architecture's name, but got them with a model that has its own"
        )
    if not isinstance(model, nn.Module):
        device = device or torch.accelerator.current_accelerator(check_available=True)
        if is_checkpoint(model):
            model = _load_task(Path(model))
        else:
            model = Encoder(str(model), weights=weights, image_size=image_size, in_channels=channels)
    return Embedder(model if device is None else model.to(device))


def is_checkpoint(model: str | Path | nn.Module) -> TypeGuard[str | Path]:
    """Returns whether a model is given by its checkpoint."""
    return isinstance(model, Path) or (isinstance(model, str) and model.endswith(".ckpt"))


def _encoder(model: nn.Module) -> Encoder:
    for holder in (model, uncompiled(getattr(model, "model", None))):
        encoder = uncompiled(holder if isinstance(holder, Encoder) else getattr(holder, "encoder", None))
        if isinstance(encoder, Encoder):
            return encoder
    raise TypeError(f"Expected an `Encoder`, or a model or task that has one, but got {type(model).__name__}")


def _load_task(path: Path) -> TransferModule:
    """Loads a task from a checkpoint that names its class, without running code from the checkpoint."""
    class_path = saved_class_path(read_checkpoint(path)) or "no class"
    task_class = imported_class(class_path)
    if task_class is None or not issubclass(task_class, TransferModule):
        raise ValueError(
            f"Expected {path} to name the class of a task, but it names {class_path}; load it with its class's "
            "`load_from_checkpoint` and pass the task"
        )
    return task_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
