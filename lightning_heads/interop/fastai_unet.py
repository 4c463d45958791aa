"""Loads the weights of a U-Net trained with fastai."""

from pathlib import Path

from torch import Tensor

from ..encoders.weights import read_weights
from ..models.unet.unet import DynamicUnet
from ..utils.modules import uncompiled

_STATISTICS = ("pyramid.encoder.mean", "pyramid.encoder.std")


def load_fastai_unet(model: DynamicUnet, path: str | Path) -> None:
    """Loads weights of fastai's `DynamicUnet` into a `DynamicUnet` with fastai's decoder.

    Both must have the same architecture and options. fastai normalizes images in its data loaders, so the encoder's
    mean and standard deviation must be those of the training; by default both use ImageNet's.

    Args:
        model: A U-Net with `decoder="fastai"`.
        path: File that fastai's `learn.save` wrote, or that has the state dict of its `DynamicUnet`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the tensors of file and model differ in number, order or shape.
    """
    model, weights = uncompiled(model), read_weights(path)
    # layers have the same order in both, under different names
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in _STATISTICS}
    shapes, expected = ([tuple(t.shape) for t in tensors.values()] for tensors in (weights, own))
    if shapes != expected:
        both = enumerate(zip(shapes, expected, strict=False))
        at = next((i for i, (got, want) in both if got != want), min(len(shapes), len(expected)))
        raise ValueError(
            f"Expected {path} to hold the {len(expected)} tensors of this U-Net, but it holds {len(shapes)}, and the "
            f"first difference is at index {at}: {_tensor_at(weights, at)} instead of {_tensor_at(own, at)}"
        )
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)), strict=False)


def _tensor_at(tensors: dict[str, Tensor], index: int) -> str:
    listed = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return listed[index] if index < len(listed) else "nothing"
