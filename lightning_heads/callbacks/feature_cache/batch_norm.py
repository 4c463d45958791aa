"""Adapts the running statistics of batch normalization layers to the training images."""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ...data.features.fingerprint import fingerprint
from ...utils.files import locked, save_tensors
from .distributed import broadcast_from_rank_zero
from .image_source import ImageSource


def adapt_batch_norm(
    trainer: L.Trainer, task: Any, images: ImageSource, count: int, *, folder: Path | None, progress: bool
) -> None:
    """Replaces an encoder's batch normalization statistics by their averages over batches of randomly drawn images.

    Pretrained weights then get activations of a new image domain normalized as those of their own domain were, before
    any training (Li et al. 2016, "Revisiting batch normalization for practical domain adaptation"). An encoder without
    running statistics is left unchanged.

    Args:
        trainer: The trainer, during `fit`.
        task: The task that is fitted, with a `model.encoder`.
        images: The training images.
        count: Number of images to draw. An incomplete last batch is dropped.
        folder: Folder in which the statistics are saved for other runs, or None.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If batch normalization statistics are synchronized across ranks.
    """
    encoder: nn.Module = task.model.encoder
    if not _batch_norms(encoder):
        return
    if any(isinstance(module, nn.SyncBatchNorm) for module in encoder.modules()):
        raise ValueError("Expected no `sync_batchnorm` with `norm_images`, as rank zero alone estimates the statistics")

    def statistics() -> dict[str, Tensor]:
        if folder is None:
            return _estimate(trainer, encoder, images, count, progress)
        key = fingerprint(images.key(), encoder, count, images.batch_size, trainer.precision, task.device.type)
        path = folder / f"statistics-{key}.safetensors"
        if not path.exists():
            with locked(path):
                if not path.exists():
                    save_tensors(path, _estimate(trainer, encoder, images, count, progress))
        return load_file(path)

    for name, values in broadcast_from_rank_zero(trainer, statistics).items():
        encoder.get_buffer(name).copy_(values)


def _estimate(
    trainer: L.Trainer, encoder: nn.Module, images: ImageSource, count: int, progress: bool
) -> dict[str, Tensor]:
    """Returns the estimated statistics by buffer name, on the CPU."""
    encoder = copy.deepcopy(encoder).eval()  # not torch's `update_bn`, which would enable dropout
    norms = _batch_norms(encoder)
    for module in norms.values():
        module.reset_running_stats()
        module.momentum = None  # cumulative average over batches
        module.train()
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(images.seed % 2**32))[:count]
    rows = rows[: max(len(rows) // images.batch_size, 1) * images.batch_size]
    plugin = trainer.precision_plugin
    device = next(encoder.parameters()).device
    with (
        tqdm(desc="estimating statistics", total=len(rows), unit="image", disable=not progress) as bar,
        torch.no_grad(),
        plugin.forward_context(),
    ):
        for batch, _ in images.batches(rows):
            encoder(plugin.convert_input(batch.to(device)))
            bar.update(len(batch))
    return {
        f"{name}.{buffer}": value.cpu()
        for name, module in norms.items()
        for buffer, value in module.named_buffers(recurse=False)
    }


def _batch_norms(encoder: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
