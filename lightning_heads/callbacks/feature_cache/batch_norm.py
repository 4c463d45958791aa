"""Statistics of batch normalization, estimated anew on the images that are trained on."""

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
from ...utils.files import locked, save_whole
from .distributed import from_first
from .image_source import ImageSource


def adapt_batch_norm(
    trainer: L.Trainer, task: Any, images: ImageSource, count: int, *, folder: Path | None, progress: bool
) -> None:
    """Replaces the running statistics of an encoder by the averages over batches of images drawn at random.

    Weights of one set of images then see features of another as they saw those of their own, before anything trains
    (Li et al. 2016, "Revisiting batch normalization for practical domain adaptation"). An encoder without running
    statistics stays as it is.

    Args:
        trainer: A trainer that fits.
        task: Its task, with a `model.encoder`.
        images: The images.
        count: How many of them to draw. A last batch that is not full is left out.
        folder: Where to keep the statistics for other runs, or None.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If statistics are synchronised between processes.
    """
    encoder: nn.Module = task.model.encoder
    if not _norms(encoder):
        return
    if any(isinstance(module, nn.SyncBatchNorm) for module in encoder.modules()):
        raise ValueError("Expected no `sync_batchnorm` beside `norm_images`, as one process estimates for all")

    def statistics() -> dict[str, Tensor]:
        if folder is None:
            return _estimated(trainer, encoder, images, count, progress)
        key = fingerprint(images.key(), encoder, count, images.batch_size, trainer.precision, task.device.type)
        path = folder / f"statistics-{key}.safetensors"
        if not path.exists():
            with locked(path):
                if not path.exists():
                    save_whole(path, _estimated(trainer, encoder, images, count, progress))
        return load_file(path)

    for name, values in from_first(trainer, statistics).items():
        encoder.get_buffer(name).copy_(values)


def _estimated(
    trainer: L.Trainer, encoder: nn.Module, images: ImageSource, count: int, progress: bool
) -> dict[str, Tensor]:
    """Returns the estimated statistics by the names of the buffers."""
    encoder = copy.deepcopy(encoder).eval()  # torch's `update_bn` would have dropout on
    norms = _norms(encoder)
    for module in norms.values():
        module.reset_running_stats()
        module.momentum = None  # a plain average over batches
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


def _norms(encoder: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
