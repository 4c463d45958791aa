"""Degradations of images that a model learns to restore."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.transforms import v2

Range = float | tuple[float, float]


class Degradation(nn.Module):
    """Base class: `forward` degrades an image, float `(c, h, w)` in 0..1, and keeps its height and width.

    Random numbers are drawn from torch's generator. A subclass defines `forward`, and `prepare` if images that are
    already degraded must be converted to the form that `forward` returns.
    """

    def prepare(self, image: Tensor) -> Tensor:
        """Converts a degraded image, as read from its file, to an input of the model; unchanged by default."""
        return image


class Downscale(Degradation):
    """Downscales an image, rounds it to 8 bits, and upscales it to its size again: for super-resolution.

    Both steps are bicubic, the first one antialiased, as in benchmarks of super-resolution. A side that `scale` does
    not divide is padded with its edge pixels until it does, so that `scale` is exact. Images to predict are upscaled.

    Args:
        scale: Factor by which height and width are divided.
        jpeg_quality: JPEG quality that the small image is compressed with, 1 to 100, or the range that it is drawn
            from; no compression by default.

    Raises:
        ValueError: If `scale` is not above 1, or the quality is not in 1 to 100.

    >>> Downscale(4)(torch.rand(3, 48, 64)).shape
    torch.Size([3, 48, 64])
    """

    def __init__(self, scale: float = 4, jpeg_quality: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        if scale <= 1:
            raise ValueError(f"Expected `scale` to be above 1, but got {scale}")
        self.scale = scale
        self.jpeg_quality = None if jpeg_quality is None else _check_quality(jpeg_quality)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the image downscaled and upscaled again."""
        small = _downscale(image, self.scale, v2.InterpolationMode.BICUBIC)
        if self.jpeg_quality is not None:
            small = _compress(small, _draw_quality(self.jpeg_quality))
        return self._restore_size(small, image)

    def prepare(self, image: Tensor) -> Tensor:
        """Upscales a small image by `scale`."""
        return _upscale(image, [round(side * self.scale) for side in image.shape[-2:]])

    def _restore_size(self, small: Tensor, image: Tensor) -> Tensor:
        """Upscales the small image, and crops the padding that was added to `image`."""
        height, width = image.shape[-2:]
        return self.prepare(small)[..., :height, :width]


class Crappify(Downscale):
    """Downscales an image, draws a number on it and compresses it as JPEG of that quality: fastai's crappifier.

    The model learns to upscale, to remove the block artifacts of the compression, and to remove text.

    Args:
        scale: Factor by which height and width are divided, bilinearly.
        jpeg_quality: JPEG quality of the compression, 1 to 100, or the range that it is drawn from.
        text: Whether to draw the quality on the image as white text.

    Raises:
        ValueError: If `scale` is not above 1, or the quality is not in 1 to 100.

    >>> Crappify(2)(torch.rand(3, 48, 64)).shape
    torch.Size([3, 48, 64])
    """

    def __init__(self, scale: float = 2, jpeg_quality: int | tuple[int, int] = (10, 70), text: bool = True) -> None:
        super().__init__(scale)
        self.jpeg_quality: tuple[int, int] = _check_quality(jpeg_quality)
        self.text = text

    def forward(self, image: Tensor) -> Tensor:
        """Returns the degraded image at its original size."""
        small = _downscale(image, self.scale, v2.InterpolationMode.BILINEAR)
        quality = _draw_quality(self.jpeg_quality)
        if self.text:
            small = _draw_text(small, str(quality))
        return self._restore_size(_compress(small, quality), image)


class Grayscale(Degradation):
    """Converts an image to its luminance (ITU-R 601), a single channel: for colorization.

    >>> Grayscale()(torch.rand(3, 48, 64)).shape
    torch.Size([1, 48, 64])
    """

    def forward(self, image: Tensor) -> Tensor:
        """Returns the luminance, `(1, h, w)`."""
        _require_gray_or_rgb("Grayscale", image)
        return v2.functional.rgb_to_grayscale(image, num_output_channels=1)  # type: ignore[no-any-return]

    def prepare(self, image: Tensor) -> Tensor:
        """Returns the luminance, `(1, h, w)`, as `forward` does."""
        gray: Tensor = self(image)
        return gray


class Noise(Degradation):
    """Adds shot noise (Poisson noise of a sensor's photon counts), then Gaussian noise, and clamps the sum to 0..1.

    Args:
        sigma: Standard deviation of the Gaussian noise, where white is 1 (25 / 255 for papers' sigma of 25), or the
            range that it is drawn from for each image.
        photons: Mean photon count of a white pixel, or the range that it is drawn from for each image; the noise is
            larger for fewer photons. No shot noise by default.

    Raises:
        ValueError: If `sigma` is negative or `photons` not positive.

    >>> Noise(0.1)(torch.rand(3, 48, 64)).shape
    torch.Size([3, 48, 64])
    """

    def __init__(self, sigma: Range = 0.1, photons: Range | None = None) -> None:
        super().__init__()
        self.sigma = _check_range("sigma", sigma)
        self.photons = None if photons is None else _check_range("photons", photons)
        if self.sigma[0] < 0:
            raise ValueError(f"Expected `sigma` to be at least 0, but got {sigma}")
        if self.photons is not None and self.photons[0] <= 0:
            raise ValueError(f"Expected `photons` to be above 0, but got {photons}")

    def forward(self, image: Tensor) -> Tensor:
        """Returns the noisy image."""
        if self.photons is not None:
            photons = _draw(self.photons)
            image = torch.poisson(image * photons) / photons
        return (image + _draw(self.sigma) * torch.randn_like(image)).clamp(0, 1)


def _downscale(image: Tensor, scale: float, interpolation: v2.InterpolationMode) -> Tensor:
    """Returns the downscaled image as uint8, as an image file would store it."""
    size = [math.ceil(side / scale) for side in image.shape[-2:]]
    bottom, right = (round(small * scale) - side for small, side in zip(size, image.shape[-2:], strict=True))
    image = v2.functional.pad(image, [0, 0, right, bottom], padding_mode="edge")
    small: Tensor = v2.functional.resize(image, size, interpolation, antialias=True)
    return (small.clamp(0, 1) * 255).round().to(torch.uint8)


def _upscale(image: Tensor, size: Sequence[int]) -> Tensor:
    # torch's bicubic weights equal those of Pillow and MATLAB only with antialiasing
    image = v2.functional.to_dtype(image, torch.float32, scale=True)
    large: Tensor = v2.functional.resize(image, [*size], v2.InterpolationMode.BICUBIC, antialias=True)
    return large.clamp(0, 1)


def _compress(image: Tensor, quality: int) -> Tensor:
    _require_gray_or_rgb("JPEG", image)
    return v2.functional.jpeg(image, quality)  # type: ignore[no-any-return]


def _require_gray_or_rgb(name: str, image: Tensor) -> None:
    if len(image) not in (1, 3):
        raise ValueError(f"Expected images of 1 or 3 channels for {name}, but got {len(image)}")


def _draw_text(image: Tensor, text: str) -> Tensor:
    """Draws white text at a random position in the upper left quarter."""
    array = image.movedim(0, -1).numpy()
    canvas = Image.fromarray(array[..., 0] if len(image) == 1 else array)
    x, y = (int(torch.randint(side // 2 + 1, ())) for side in canvas.size)
    ImageDraw.Draw(canvas).text((x, y), text, fill="white")
    return torch.from_numpy(np.array(canvas)).view(array.shape).movedim(-1, 0)


def _check_quality(quality: int | tuple[int, int]) -> tuple[int, int]:
    low, high = _check_range("jpeg_quality", quality)
    if not 1 <= low <= high <= 100:
        raise ValueError(f"Expected `jpeg_quality` in 1 to 100, but got {quality}")
    return int(low), int(high)


def _check_range(name: str, value: Range) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, (int, float)) else value
    if low > high:
        raise ValueError(f"Expected `{name}` to be an ascending range, but got {value}")
    return low, high


def _draw(bounds: tuple[float, float]) -> float:
    return float(torch.empty(()).uniform_(*bounds))


def _draw_quality(bounds: tuple[int, int]) -> int:
    return int(torch.randint(bounds[0], bounds[1] + 1, ()))
