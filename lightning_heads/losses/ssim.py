"""Structural similarity (SSIM) loss of images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.tensors import at_least_float32


class SSIMLoss(nn.Module):
    """One minus the structural similarity of images `(b, c, h, w)` in 0..1, from 0 for equal images to 2 (Wang 2004).

    The similarity is the mean over all channels and all positions where the Gaussian window lies inside the image. It
    is computed in float32 at least, also under autocast.

    Args:
        window_size: Side of the window, odd, in pixels.
        sigma: Standard deviation of the window, in pixels.
        k1: Stabilizing constant of the luminance term.
        k2: Stabilizing constant of the contrast and structure term.

    Raises:
        ValueError: If the window is even, or images differ in shape or are smaller than the window.

    >>> image = torch.rand(1, 3, 32, 32)
    >>> round(SSIMLoss()(image, image).item(), 6)
    0.0
    """

    def __init__(self, window_size: int = 11, sigma: float = 1.5, k1: float = 0.01, k2: float = 0.03) -> None:
        super().__init__()
        if window_size < 1 or window_size % 2 == 0:
            raise ValueError(f"Expected `window_size` to be odd, but got {window_size}")
        self.window_size, self.sigma = window_size, sigma
        self.c1, self.c2 = k1**2, k2**2

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        check_shapes(outputs, target)
        if min(outputs.shape[-2:]) < self.window_size:
            raise ValueError(
                f"Expected images of at least {self.window_size} pixels a side, the window of SSIM, but got "
                f"{outputs.shape[-2]}x{outputs.shape[-1]}"
            )
        with torch.autocast(outputs.device.type, enabled=False):
            x, y = at_least_float32(outputs), at_least_float32(target)
            mean_x, mean_y, square_x, square_y, product = self._blur(x, y, x * x, y * y, x * y)
            luminance = (2 * mean_x * mean_y + self.c1) / (mean_x**2 + mean_y**2 + self.c1)
            variances = square_x - mean_x**2 + square_y - mean_y**2
            structure = (2 * (product - mean_x * mean_y) + self.c2) / (variances + self.c2)
            return 1 - (luminance * structure).mean()

    def _blur(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Returns the Gaussian-weighted mean around each position where the window lies inside the images."""
        # contiguous, as cuDNN would convolve channels-last images in TF32, too imprecise for differences of squares
        stacked = torch.cat(images, dim=1).contiguous()
        positions = torch.arange(self.window_size, device=stacked.device, dtype=stacked.dtype) - self.window_size // 2
        window = (-(positions**2) / (2 * self.sigma**2)).exp()
        column = (window / window.sum()).view(1, 1, -1, 1).repeat(stacked.shape[1], 1, 1, 1)
        blurred = F.conv2d(stacked, column, groups=stacked.shape[1])
        return F.conv2d(blurred, column.mT, groups=stacked.shape[1]).chunk(len(images), dim=1)


def check_shapes(outputs: Tensor, target: Tensor) -> None:
    """Checks that targets have the shape of the outputs, since arithmetic would broadcast them otherwise.

    Raises:
        ValueError: If the shapes differ.
    """
    if target.shape != outputs.shape:
        raise ValueError(f"Expected targets of {tuple(outputs.shape)}, but got {tuple(target.shape)}")
