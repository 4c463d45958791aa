import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_heads import Encoder, param_groups
from lightning_heads.models import DenseModel
from tests.models.exports import NAMED, check_export


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "transposed", "pixel_shuffle"])
@pytest.mark.parametrize("size", [(64, 64), (97, 131)])
def test_output_has_the_images_size_and_every_parameter_a_gradient(upsample: Any, size: tuple[int, int]) -> None:
    model = DenseModel("test_resnet", 3, pretrained=False, upsample=upsample, width=32)
    out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, *size)
    out.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "torchvision/squeezenet1_1"])
def test_other_encoders(name: str) -> None:
    assert DenseModel(name, 2, pretrained=False, width=16)(torch.rand(2, 3, 64, 80)).shape == (2, 2, 64, 80)


def test_is_the_head_on_the_encoders_map() -> None:
    encoder = Encoder("test_resnet", pretrained=False)
    model = DenseModel(encoder, 2, width=16).eval()
    x = torch.rand(1, 3, 50, 70)
    expected = F.interpolate(model.head(encoder(x)), (50, 70))
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)


def test_groups_are_the_encoders_then_the_head() -> None:
    model = DenseModel("test_resnet", 2, pretrained=False, width=16)
    groups = param_groups(model)
    assert len(groups) == 3
    assert {id(p) for p in groups[-1]} == {id(p) for p in model.head.parameters()}
    assert sum(len(group) for group in groups) == len([*model.parameters()])


def test_outputs_stay_in_y_range() -> None:
    out = DenseModel("test_resnet", 1, pretrained=False, width=16, y_range=(2.0, 3.0))(torch.rand(2, 3, 64, 64) * 9)
    assert out.min() >= 2
    assert out.max() <= 3


def test_refuses_arguments_of_an_encoder_with_one_that_is_built() -> None:
    with pytest.raises(ValueError, match="with an encoder's name, but got it with an `Encoder`: pass it to `Encoder`"):
        DenseModel(Encoder("test_resnet", pretrained=False), 2, in_channels=3)


def test_exports_with_named_sizes() -> None:
    check_export(DenseModel("test_resnet", 2, pretrained=False, width=16).eval(), {"x": NAMED})
