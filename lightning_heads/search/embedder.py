"""What maps images to embeddings, and how it is built again."""

import hashlib
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ..data.images.datamodule import Resize
from ..encoders import Encoder
from ..tasks import TransferModule
from ..tasks.metric_learning import ImageEmbedder


@dataclass(frozen=True)
class EmbeddingConfig:
    """How embeddings were made, in plain values.

    Attributes:
        encoder: The architecture's name, where that was given.
        weights: The absolute path of its weights, where a local file held them.
        checkpoint: The absolute path of the task's checkpoint, where that was given. Without either of them the model
            was in memory.
        image_size: Height and width that images were brought to, in pixels.
        resize: How; see `ResizeTo`.
        channels: Channels of the images.
        fingerprint: See `fingerprint`.
    """

    encoder: str | None
    weights: str | None
    checkpoint: str | None
    image_size: tuple[int, int]
    resize: Resize
    channels: int
    fingerprint: str


class Embedder(nn.Module):
    """Maps images in 0..1, `(b, c, h, w)`, to embeddings `(b, d)`.

    These are what an `ImageEmbedder` predicts; of anything else with an encoder, the average of its last feature map.

    Args:
        model: An encoder, or a model or task that has one.

    Raises:
        TypeError: If there is no encoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = _encoder(model)
        self.task = model if isinstance(model, ImageEmbedder) else None

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.encoder(images).mean(dim=(2, 3)) if self.task is None else self.task.predict(images)
        return out

    def fingerprint(self) -> str:
        """Returns a digest of all weights, which tells whether embeddings of two models are to be compared."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in (self.encoder if self.task is None else self.task.model).state_dict().items():
            digest.update(name.encode())
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
    """Builds the model, where it is a name or a checkpoint, and moves it; see `embed`."""
    if weights is not None and (isinstance(model, nn.Module) or is_checkpoint(model)):
        raise ValueError("Expected `weights` with an architecture's name alone, but got them with a model's own")
    if not isinstance(model, nn.Module):
        device = device or torch.accelerator.current_accelerator(check_available=True)
        if is_checkpoint(model):
            model = _load_task(Path(model))
        else:
            model = Encoder(str(model), weights=weights, image_size=image_size, in_channels=channels)
    return Embedder(model if device is None else model.to(device))


def is_checkpoint(model: str | Path | nn.Module) -> TypeGuard[str | Path]:
    """Tells whether a model is given by its checkpoint."""
    return isinstance(model, Path) or (isinstance(model, str) and model.endswith(".ckpt"))


def _encoder(model: nn.Module) -> Encoder:
    for holder in (model, getattr(model, "model", None)):
        encoder = holder if isinstance(holder, Encoder) else getattr(holder, "encoder", None)
        if isinstance(encoder, Encoder):
            return encoder
    raise TypeError(f"Expected an `Encoder`, or a model or task that has one, but got {type(model).__name__}")


def _load_task(path: Path) -> TransferModule:
    """Loads a task whose checkpoint names its class, without running code from it."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint, but there is no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"Expected {path} to be a checkpoint of plain values, but: {error}") from error
    saved = checkpoint if isinstance(checkpoint, dict) else {}
    named = saved.get("class_path") or saved.get("hyper_parameters", {}).get("_class_path") or "no class"
    module, _, name = named.rpartition(".")
    # what is not imported yet stays so: a file must not choose what code runs
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, TransferModule)):
        raise ValueError(
            f"Expected {path} to name the class of a task, but it names {named}; load it by its class's "
            "`load_from_checkpoint` and pass the task"
        )
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
