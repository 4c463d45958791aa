"""Ways to spoil a photograph, for a model that learns to restore it."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.transforms import v2

Range = float | tuple[float, float]


class Degradation(nn.Module):
    """Makes a worse image of a good one, float `(c, h, w)` in 0..1, of the same height and width.

    What is random draws from torch's generator. A subclass has `forward`, and `prepare` where images that are bad
    already must first be brought to the form that `forward` gives.
    """

    def prepare(self, image: Tensor) -> Tensor:
        """Turns a bad image as it lies in its file into an input of the model; here it is one already."""
        return image


class Downscale(Degradation):
    """Makes an image smaller, stores it in 8 bits, and enlarges it to its size again: for super-resolution.

    Both ways are bicubic, the first one antialiased, as super-resolution is measured. A side that `scale` does not
    divide is continued by its last pixels until it does, so that `scale` is exact. Images to predict are enlarged.

    Args:
        scale: How many times smaller.
        jpeg_quality: Quality that the small image is compressed with as JPEG, 1 to 100, or the range that it is drawn
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
        """Returns the enlarged small image."""
        small = _shrink(image, self.scale, v2.InterpolationMode.BICUBIC)
        if self.jpeg_quality is not None:
            small = _compress(small, _draw_quality(self.jpeg_quality))
        return self._enlarged(small, image)

    def prepare(self, image: Tensor) -> Tensor:
        """Enlarges a small image."""
        return _enlarge(image, [round(side * self.scale) for side in image.shape[-2:]])

    def _enlarged(self, small: Tensor, image: Tensor) -> Tensor:
        """Enlarges the small image, and leaves out what continued the original."""
        height, width = image.shape[-2:]
        return self.prepare(small)[..., :height, :width]


class Crappify(Downscale):
    """Makes an image smaller, writes a number on it and compresses it as JPEG of that quality: fastai's crappifier.

    The model learns to enlarge, to smooth the blocks of the compression and to remove writing.

    Args:
        scale: How many times smaller, bilinearly.
        jpeg_quality: Quality of the compression, 1 to 100, or the range that it is drawn from.
        text: Whether to write the quality on the image, in white.

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
        """Returns the enlarged bad image."""
        small = _shrink(image, self.scale, v2.InterpolationMode.BILINEAR)
        quality = _draw_quality(self.jpeg_quality)
        if self.text:
            small = _write(small, str(quality))
        return self._enlarged(_compress(small, quality), image)


class Grayscale(Degradation):
    """Leaves an image's luminance (ITU-R 601) as its one channel: for colorization.

    >>> Grayscale()(torch.rand(3, 48, 64)).shape
    torch.Size([1, 48, 64])
    """

    def forward(self, image: Tensor) -> Tensor:
        """Returns the luminance, `(1, h, w)`."""
        _require_opaque("Grayscale", image)
        return v2.functional.rgb_to_grayscale(image, num_output_channels=1)  # type: ignore[no-any-return]

    def prepare(self, image: Tensor) -> Tensor:
        """Returns the luminance, as of good images."""
        gray: Tensor = self(image)
        return gray


class Noise(Degradation):
    """Adds noise: that of a sensor's counted photons, then gaussian noise; the sum is cut to 0..1.

    Args:
        sigma: Standard deviation of the gaussian noise, where white is 1 (25 / 255 in papers that say 25), or the range
            that it is drawn from, one for each image.
        photons: Photons that a white pixel counts on average, or the range that it is drawn from: the fewer, the
            noisier, as Poisson's distribution has it. None by default: no such noise.

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


def _shrink(image: Tensor, scale: float, interpolation: v2.InterpolationMode) -> Tensor:
    """Returns the smaller image as a file would hold it, uint8."""
    size = [math.ceil(side / scale) for side in image.shape[-2:]]
    bottom, right = (round(small * scale) - side for small, side in zip(size, image.shape[-2:], strict=True))
    image = v2.functional.pad(image, [0, 0, right, bottom], padding_mode="edge")
    small: Tensor = v2.functional.resize(image, size, interpolation, antialias=True)
    return (small.clamp(0, 1) * 255).round().to(torch.uint8)


def _enlarge(image: Tensor, size: Sequence[int]) -> Tensor:
    # torch's bicubic weights are Pillow's and MATLAB's only where it is told to antialias
    image = v2.functional.to_dtype(image, torch.float32, scale=True)
    large: Tensor = v2.functional.resize(image, [*size], v2.InterpolationMode.BICUBIC, antialias=True)
    return large.clamp(0, 1)


def _compress(image: Tensor, quality: int) -> Tensor:
    _require_opaque("JPEG", image)
    return v2.functional.jpeg(image, quality)  # type: ignore[no-any-return]


def _require_opaque(name: str, image: Tensor) -> None:
    if len(image) not in (1, 3):
        raise ValueError(f"Expected images of 1 or 3 channels for {name}, but got {len(image)}")


def _write(image: Tensor, text: str) -> Tensor:
    """Writes in white at a random place of the upper left quarter."""
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
        raise ValueError(f"Expected `{name}` to go up, but got {value}")
    return low, high


def _draw(bounds: tuple[float, float]) -> float:
    return float(torch.empty(()).uniform_(*bounds))


def _draw_quality(bounds: tuple[int, int]) -> int:
    return int(torch.randint(bounds[0], bounds[1] + 1, ()))
