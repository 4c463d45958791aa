import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_heads.layers import Blur, PixelShuffleICNR, Upsample, from_blocks, icnr_, to_blocks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.layers import NormType, PixelShuffle_ICNR, icnr_init


@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch", "weight"])
def test_pixel_shuffle_equals_fastai_for_equal_weights(norm: str, blur: bool) -> None:
    kinds = {"none": None, "batch": NormType.Batch, "weight": NormType.Weight}
    theirs = PixelShuffle_ICNR(6, 4, blur=blur, norm_type=kinds[norm])
    ours = PixelShuffleICNR(6, 4, blur=blur, norm=norm)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    state = theirs.state_dict()
    if norm == "weight":  # torch's older `weight_norm`, which fastai uses, stores bias, magnitude, direction
        (bias, factor, direction) = state.values()
        ours.load_state_dict(dict(zip(ours.state_dict(), (bias, factor, direction), strict=True)))
    else:
        ours.load_state_dict({own: state[key] for own, key in zip(ours.state_dict(), state, strict=True)})
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch", "group", "instance", "weight", "spectral"])
def test_starts_as_nearest_neighbors(norm: str) -> None:
    out = PixelShuffleICNR(6, 8, norm=norm)(torch.randn(2, 6, 5, 7))
    assert out.shape == (2, 8, 10, 14)
    torch.testing.assert_close(out, F.interpolate(out[..., ::2, ::2], scale_factor=2))


def test_icnr_has_equal_blocks_and_fastais_standard_deviation() -> None:
    weights = [icnr_(torch.empty(512, 16, 3, 3)), icnr_init(torch.empty(512, 16, 3, 3))]
    for weight in weights:
        blocks = weight.view(128, 4, 16, 3, 3)
        assert torch.equal(blocks, blocks[:, :1].expand_as(blocks))
    ours, theirs = (weight.std().item() for weight in weights)
    assert ours == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)
    assert ours == pytest.approx(theirs, rel=0.1)


def test_blur_averages_with_the_pixels_above_and_to_the_left() -> None:
    out = Blur()(torch.arange(9.0).view(1, 1, 3, 3))
    expected = [[0, 0.5, 1.5], [1.5, 2, 3], [4.5, 5, 6]]
    assert out[0, 0].tolist() == expected


@pytest.mark.parametrize("method", ["bilinear", "pixel_shuffle"])
@pytest.mark.parametrize("size", [(10, 14), (9, 13), (11, 15)])
def test_upsample_returns_the_requested_size(method: str, size: tuple[int, int]) -> None:
    assert Upsample(6, 4, method)(torch.rand(2, 6, 5, 7), size).shape == (2, 4, *size)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
def test_from_blocks_inverts_to_blocks(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    blocks = to_blocks(image)
    assert blocks.shape == (2, 12, (size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(blocks[:, ::4, 0, 0], image[..., 0, 0])
    assert torch.equal(from_blocks(blocks, size), image)
