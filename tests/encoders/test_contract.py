"""What every encoder keeps, over small architectures of many families."""

import copy
import io

import pytest
import torch
from architectures import TIMM, TORCHVISION

from lightning_heads import ImageModel, param_groups

ALL = TIMM | TORCHVISION


@pytest.mark.parametrize("name", ALL)
def test_image_model_contract(name: str) -> None:
    size = ALL[name]
    torch.manual_seed(0)
    model = ImageModel(name, 3, pretrained=False, lin_ftrs=[8], ps=0.0)
    encoder = model.encoder
    x = torch.rand(2, encoder.in_channels, size, size)

    # shapes: one map, and a pyramid from fine to coarse with the channels it says
    model.eval()
    with torch.no_grad():
        features = encoder(x)
        maps = encoder.pyramid(x)
        out = model(x)
    assert features.shape[:2] == (2, encoder.num_features)
    assert out.shape == (2, 3)
    assert tuple(m.shape[1] for m in maps) == encoder.channels
    assert len(encoder.channels) == len(encoder.reductions) == len(maps)
    heights = [m.shape[-2] for m in maps]
    assert heights == sorted(set(heights), reverse=True)
    assert features.isfinite().all()

    # groups: two of the encoder and the head, each parameter in one; the first layer is in the first
    groups = param_groups(model)
    assert len(groups) == 3
    assert all(groups)
    assert next(p for p in encoder.parameters() if p.ndim == 4).data_ptr() in {p.data_ptr() for p in groups[0]}

    # a copy and a reload are equal
    torch.testing.assert_close(copy.deepcopy(model)(x), out, atol=0, rtol=0)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    torch.manual_seed(1)
    other = ImageModel(name, 3, pretrained=False, lin_ftrs=[8], ps=0.0).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(other(x), out, atol=0, rtol=0)

    # every parameter gets a gradient
    model.train()
    model(x).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", ALL)
def test_exports(name: str) -> None:
    size = ALL[name]
    model = ImageModel(name, 3, pretrained=False, lin_ftrs=[8]).eval()
    x = torch.rand(2, model.encoder.in_channels, size, size)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


def test_spread_is_wide() -> None:
    assert len(TIMM) >= 60
