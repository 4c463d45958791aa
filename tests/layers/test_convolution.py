import warnings

import pytest
import torch
from torch import nn

from lightning_heads.layers import conv_layer, norm_layer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.layers import ConvLayer, NormType


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(("ks", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_equals_fastai_for_equal_weights(norm: str, ks: int, stride: int) -> None:
    theirs = ConvLayer(6, 8, ks, stride, norm_type={"batch": NormType.Batch, "none": None}[norm])
    ours = conv_layer(6, 8, ks, stride=stride, norm=norm)
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs]
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 9, 11)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["weight", "spectral", "none"])
def test_convolution_has_a_bias_unless_a_norm_layer_follows(norm: str) -> None:
    assert conv_layer(4, 8, norm=norm)[0].bias is not None
    assert conv_layer(4, 8, norm="group")[0].bias is None


def test_spectral_norm_sets_the_largest_singular_value_to_one() -> None:
    conv = conv_layer(16, 16, 1, norm="spectral", act=None)[0]
    for _ in range(50):  # one power iteration per access in training mode
        weight = conv.weight
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.01)


def test_weight_norm_separates_magnitude_from_direction() -> None:
    conv = conv_layer(4, 8, norm="weight")[0]
    with torch.no_grad():
        conv.parametrizations.weight.original0.fill_(2)
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((8,), 2.0))


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 16, 32, 96])
def test_group_norm_accepts_any_number_of_channels(channels: int) -> None:
    layer = norm_layer("group", channels)
    out = layer(torch.randn(2, channels, 8, 8))
    assert out.shape == (2, channels, 8, 8)
    assert layer.num_groups == {1: 1, 2: 1, 3: 1, 7: 1, 16: 8, 32: 16, 96: 32}[channels]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`norm` to be one of batch, .*'layer'"):
        conv_layer(4, 8, norm="layer")
    with pytest.raises(ValueError, match=r"`act` to be one of gelu, .*'tanh'"):
        conv_layer(4, 8, act="tanh")
