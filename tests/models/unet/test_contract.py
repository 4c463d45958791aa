"""Contract of the U-Net on every encoder, over small architectures of many families."""

from typing import Any

import pytest
import torch

from lightning_heads import Encoder, param_groups
from lightning_heads.models import DynamicUnet
from tests.encoders.test_contract import ALL, FAST, TIMM, TORCHVISION, architecture, by_speed

# Families that are slow to build.
SLOW = {"halonet_h1", "cait_xxs24_224", "coat_tiny", "crossvit_tiny_240", "gcvit_xxtiny"}
# Convolutions without padding need more than a few pixels.
MIN_SIZES = {"torchvision/alexnet": (65, 99), "torchvision/inception_v3": (97, 131)}

NAMES = [name for name in ALL if name not in SLOW]


def _size(model: DynamicUnet, name: str) -> tuple[int, int]:
    """Returns an odd size that is not square, if the backbone takes it."""
    return model.encoder.meta.input_size if model.encoder.meta.fixed_size else MIN_SIZES.get(name, (33, 65))


def _unet(name: str) -> DynamicUnet:
    encoder = architecture(name)
    return DynamicUnet(encoder if isinstance(encoder, str) else Encoder(encoder, readout=False), 2, pretrained=False)


@pytest.mark.parametrize("name", by_speed(NAMES, FAST))
def test_unet_contract(name: str) -> None:
    model = _unet(name).train()
    size = _size(model, name)
    out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 2, *size)
    assert out.isfinite().all()

    groups = param_groups(model)
    grouped = [id(p) for group in groups for p in group]
    assert len(groups) >= 2
    assert all(groups)
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}

    out.square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "ghostnet_050", "test_vit", "torchvision/vit_b_16"])
def test_layers_that_no_map_depends_on_are_dropped(name: str) -> None:
    with torch.device("meta" if name in TIMM else "cpu"):
        model = _unet(name)
        loss = model(torch.zeros(1, 3, *_size(model, name))).sum()
    gradients = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    assert all(gradient is not None for gradient in gradients)
    assert not any("conv_head" in key or "encoder.ln" in key for key in model.state_dict())


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("test_resnet", "light"),
        ("test_resnet", "fastai"),
        ("test_vit", "light"),
        ("test_convnext", "light"),
        ("test_efficientnet", "fastai"),
        ("tf_efficientnet_lite0", "light"),
    ],
)
def test_exports(name: str, decoder: Any) -> None:
    model = DynamicUnet(name, 2, pretrained=False, decoder=decoder).eval()
    x = torch.rand(1, 3, 33, 65)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


def test_many_architectures_are_covered() -> None:
    assert len([name for name in NAMES if name in TIMM]) >= 40
    assert set(TORCHVISION) <= set(NAMES)
