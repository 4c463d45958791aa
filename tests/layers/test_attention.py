import warnings

import pytest
import torch
from torch import nn

from lightning_heads.layers import SelfAttention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.layers import SelfAttention as FastaiAttention


@pytest.mark.parametrize(("channels", "size"), [(16, (5, 7)), (24, (1, 3)), (8, (6, 6))])
def test_equals_fastai_for_equal_weights(channels: int, size: tuple[int, int]) -> None:
    theirs, ours = FastaiAttention(channels), SelfAttention(channels)
    nn.init.constant_(theirs.gamma, 0.7)
    state = theirs.state_dict()
    ours.load_state_dict({own: state[key] for own, key in zip(ours.state_dict(), state, strict=True)})
    x = torch.randn(2, channels, *size)
    expected = theirs.eval()(x)
    assert not torch.allclose(expected, x)
    torch.testing.assert_close(ours.eval()(x), expected, atol=1e-5, rtol=1e-5)

    # in training mode both approach the spectral norm by power iteration, but in another order
    for _ in range(200):
        ours.train()(x), theirs.train()(x)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_starts_as_the_identity_and_gets_a_gradient() -> None:
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 4, 5)
    out = layer(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert layer.gamma.grad.abs() > 0


def test_few_channels() -> None:
    assert SelfAttention(3)(torch.rand(1, 3, 4, 4)).shape == (1, 3, 4, 4)
