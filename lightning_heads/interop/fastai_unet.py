"""Weights of a U-Net that fastai trained."""

from pathlib import Path

from torch import Tensor

from ..encoders.weights import read_weights
from ..models.unet.unet import DynamicUnet

_STATISTICS = ("pyramid.encoder.mean", "pyramid.encoder.std")


def load_fastai_unet(model: DynamicUnet, path: str | Path) -> None:
    """Loads what fastai's `learn.save` wrote, or a state dict of its `DynamicUnet`, into one with fastai's decoder.

    The model needs the same architecture and options. fastai normalizes in its data loaders, so the encoder's mean and
    standard deviation must be those that it was trained with; by default they are ImageNet's in both.

    Args:
        model: A U-Net with `decoder="fastai"`.
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file's tensors are not the model's, in number, order and shape.
    """
    weights = read_weights(path)
    # layers lie in one order in both, under other names
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in _STATISTICS}
    shapes, expected = ([tuple(t.shape) for t in tensors.values()] for tensors in (weights, own))
    if shapes != expected:
        both = enumerate(zip(shapes, expected, strict=False))
        at = next((i for i, (got, want) in both if got != want), min(len(shapes), len(expected)))
        raise ValueError(
            f"Expected {path} to hold the {len(expected)} tensors of this U-Net, but it holds {len(shapes)}, and they "
            f"differ from number {at} on: {_at(weights, at)} instead of {_at(own, at)}"
        )
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)), strict=False)


def _at(tensors: dict[str, Tensor], index: int) -> str:
    listed = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return listed[index] if index < len(listed) else "nothing"
