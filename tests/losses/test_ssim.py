from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_heads.losses.ssim import SSIMLoss


def _torchmetrics(outputs: Tensor, target: Tensor, border: int = 5, **settings: Any) -> Tensor:
    """SSIM without the border, where torchmetrics pads the images by reflection."""
    _, full = structural_similarity_index_measure(outputs, target, data_range=1.0, return_full_image=True, **settings)
    return full[..., border:-border, border:-border].mean()


def _pair(channels: int, height: int, width: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Smooth random images and the same with noise."""
    coarse = torch.rand(2, channels, 4, 4)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (target + noise * torch.randn_like(target)).clamp(0, 1), target


@pytest.mark.parametrize("shape", [(1, 11, 16), (3, 32, 24), (4, 20, 20)])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_loss_is_one_minus_the_ssim_of_torchmetrics_and_scikit_image(shape: tuple[int, int, int], noise: float) -> None:
    outputs, target = (x.double() for x in _pair(*shape, noise=noise))
    loss = SSIMLoss()(outputs, target).item()
    assert 0 < loss < 1
    assert loss == pytest.approx(1 - _torchmetrics(outputs, target).item(), rel=1e-9)
    images = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=0,
        )
        for x, y in zip(outputs, target, strict=True)
    ]
    assert loss == pytest.approx(1 - sum(images) / len(images), rel=1e-9)
    assert SSIMLoss()(outputs.float(), target.float()).item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(("window_size", "sigma"), [(7, 1.0), (5, 2.0)])
def test_other_windows_equal_torchmetrics(window_size: int, sigma: float) -> None:
    outputs, target = _pair(3, 24, 24)
    expected = _torchmetrics(outputs, target, window_size // 2, gaussian_kernel=False, kernel_size=window_size)
    uniform = SSIMLoss(window_size, sigma=1e4)(outputs, target)  # a Gaussian this wide is uniform
    torch.testing.assert_close(uniform, 1 - expected, atol=1e-4, rtol=1e-4)
    assert not torch.isclose(SSIMLoss(window_size, sigma)(outputs, target), uniform, rtol=1e-3)


def test_gradient_equals_torchmetrics() -> None:
    outputs, target = _pair(3, 24, 24)
    outputs.requires_grad_()
    (ours,) = torch.autograd.grad(SSIMLoss()(outputs, target), outputs)
    (theirs,) = torch.autograd.grad(-_torchmetrics(outputs, target), outputs)
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    outputs, target = (x.to(dtype) for x in _pair(3, 24, 24))
    with torch.autocast("cpu", torch.bfloat16):
        loss = SSIMLoss()(outputs, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, SSIMLoss()(outputs.float(), target.float()), atol=0, rtol=0)


def test_memory_format_makes_no_difference() -> None:
    outputs, target = _pair(3, 24, 24)
    expected = SSIMLoss()(outputs, target)
    torch.testing.assert_close(SSIMLoss()(outputs.contiguous(memory_format=torch.channels_last), target), expected)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="`window_size` to be odd, but got 10"):
        SSIMLoss(10)
    with pytest.raises(ValueError, match="at least 11 pixels a side, the window of SSIM, but got 10x32"):
        SSIMLoss()(torch.rand(1, 3, 10, 32), torch.rand(1, 3, 10, 32))
    with pytest.raises(ValueError, match=r"targets of \(1, 3, 16, 16\), but got \(1, 1, 16, 16\)"):
        SSIMLoss()(torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16))
