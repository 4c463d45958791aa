"""Images in 0..1, and a little outside of it, are accepted; other units and types are refused."""

import math

import pytest
import torch
from torch import Tensor

from lightning_heads.utils.image_range import check_image_range

UNIT = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@pytest.mark.parametrize(
    "images",
    [
        UNIT,
        UNIT.half(),
        UNIT.double(),
        UNIT > 0.5,
        torch.zeros(1, 3, 8, 8),
        torch.empty(0, 3, 8, 8),
        UNIT * 1.2 - 0.1,  # overshoot of an interpolation
        UNIT + 50 / 255 * NOISE,  # the noise of common benchmarks of denoising
    ],
    ids=["unit", "half", "double", "bool", "black", "empty", "overshoot", "noise"],
)
def test_images_of_about_0_to_1_are_accepted(images: Tensor) -> None:
    check_image_range(images)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ((UNIT * 255).byte(), "but got torch.uint8"),
        ((UNIT * 255).long(), "but got torch.int64"),
        ((UNIT > 2).byte(), "but got torch.uint8"),
        (torch.full((2, 3, 8, 8), 255.0), "but this batch has values from 255 to 255"),
        ((UNIT * 255).half(), "but this batch has values from"),
        ((UNIT > 0.995) * 255.0, "but this batch has values from 0 to 255"),
        (UNIT * 65535, "but this batch has values from"),
        ((UNIT - MEAN) / STD, r"but this batch has values from -2\.1\d* to 2\.6"),
        (UNIT * 2 - 1, "but this batch has values from -0.99"),
        (UNIT.clone().index_fill_(0, torch.tensor([1]), math.nan), "but this batch has values from nan to nan"),
        (UNIT.clone().index_fill_(0, torch.tensor([1]), math.inf), "but this batch has values from .* to inf"),
    ],
    ids=["uint8", "int64", "black", "white", "half", "sparse", "16-bit", "normalized", "centered", "nan", "inf"],
)
def test_images_in_other_units_are_refused(images: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=f"Expected .*targets in 0..1, {found}.*"):
        check_image_range(images, "targets")
