"""Check of the type and range of images."""

import torch
from torch import Tensor

_MARGIN = 0.5  # how far outside of 0..1 a value may lie, such as of noise or the overshoot of an interpolation
_TOLERANCE = 0.01  # mean distance from that range from which on images are refused


def check_image_type(images: Tensor, name: str = "images") -> None:
    """Raises ValueError for images of integers, whose range is 0..255 or larger."""
    if not (images.is_floating_point() or images.dtype == torch.bool):
        raise ValueError(
            f"Expected float {name} in 0..1, but got {images.dtype}; convert them by "
            "`torchvision.transforms.v2.ToDtype(torch.float32, scale=True)`, which divides bytes by 255"
        )


def check_image_range(images: Tensor, name: str = "images", advice: str = "") -> None:
    """Raises ValueError for images of integers, or with values far outside of 0..1; waits for their device.

    Values from -0.5 to 1.5 are accepted, and few that exceed this range, as noise has them, too: the mean distance of
    all values from it is at most 0.01.

    Args:
        images: Images of any shape.
        name: What the images are, for the error.
        advice: What else can be done, for the error.
    """
    check_image_type(images, name)
    distances = ((images.float() - 0.5).abs() - 0.5 - _MARGIN).clamp(min=0)
    if not distances.sum() <= _TOLERANCE * distances.numel():  # also if there are NaNs
        low, high = (float(bound) for bound in images.aminmax())
        raise ValueError(
            f"Expected {name} in 0..1, but this batch has values from {low:g} to {high:g}; scale them to 0..1, for "
            f"example by a division by 255{advice}"
        )
