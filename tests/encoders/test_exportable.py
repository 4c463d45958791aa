"""Layers of backbones that are exported with dynamic sizes, compared with those of torch and timm."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from lightning_heads.encoders.exportable import make_exportable
from tests.models.exports import NAMED, ODD_EXAMPLE, SIZES, images, without_logs


@without_logs()
@torch.no_grad()
@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((3, 5), (2, 3), (1, 2), ceil_mode=True),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
        Conv2dSame(3, 4, 3, 2),
        Conv2dSame(3, 4, (5, 3), (3, 2), dilation=(1, 2), bias=False),
    ],
    ids=str,
)
def test_layers_with_dynamic_sizes(layer: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(layer), nn.ReLU())
    make_exportable(model)
    exported = torch.export.export(model, images(*ODD_EXAMPLE), dynamic_shapes=(NAMED,)).module()
    for size in [*SIZES, (1, 65, 66)]:
        (x,) = images(*size)
        expected = layer(x).relu()
        torch.testing.assert_close(model(x), expected, atol=0, rtol=0)
        torch.testing.assert_close(exported(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(2, 2, 1, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True, ceil_mode=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(2, 2, 1, ceil_mode=True),
        Conv2dSame(3, 4, 1, 2),
    ],
    ids=str,
)
def test_other_layers_are_left_as_they_are(layer: nn.Module) -> None:
    before = type(layer)
    make_exportable(layer)
    assert type(layer) is before
