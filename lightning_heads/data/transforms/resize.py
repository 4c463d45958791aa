"""Resizes images to one size."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class ResizeTo(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Resizes uint8 images to one size, and their masks alike with nearest-neighbor interpolation.

    Args:
        size: Height and width, in pixels.
        method: `crop` keeps the aspect ratio and crops the longer side; `squish` does not keep the aspect ratio; `pad`
            keeps it and pads the shorter side; `none` does not scale, but crops sides that are longer and pads sides
            that are shorter.
        random: Whether to crop at a random position, as for training, instead of the center.
        whole: Whether to scale only, without cropping or padding, so that sizes differ.
        fill: Padding: `black`, or `mirror` to repeat the image mirrored; with None nothing is padded and sizes differ.
    """

    def __init__(
        self,
        size: Sequence[int],
        method: str = "crop",
        random: bool = False,
        *,
        whole: bool = False,
        fill: Literal["black", "mirror"] | None = "black",
    ) -> None:
        super().__init__()
        if method not in ("crop", "squish", "pad", "none"):
            raise ValueError(f"Expected `resize` to be none, crop, squish or pad, but got {method!r}")
        self.size, self.method, self.random = (size[0], size[1]), method, random
        self.whole, self.fill = whole, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the position of the crop, as fractions of the margins."""
        return {"position": [float(torch.rand(())) if self.random else 0.5 for _ in range(2)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes an image or a mask."""
        height, width = self.size
        h, w = self.scaled_size(*inpt.shape[-2:])
        out = self._resize(inpt, h, w)
        if self.whole:
            return out
        if self.fill is None:
            height, width = min(h, height), min(w, width)
        elif h < height or w < width:
            out = self._pad(out, max(height - h, 0), max(width - w, 0))
        top, left = (
            round(fraction * (old - new))
            for fraction, old, new in zip(params["position"], out.shape[-2:], (height, width), strict=True)
        )
        return self._call_kernel(v2.functional.crop, out, top, left, height, width)

    def scaled_size(self, h: int, w: int) -> tuple[int, int]:
        """Returns height and width of an image once it is scaled, before it is cropped or padded.

        An image that has this size already is not scaled again.
        """
        height, width = self.size
        if self.method == "squish":
            return height, width
        if self.method == "none":
            return h, w
        choose = max if self.method == "crop" else min
        scale = choose(height / h, width / w)
        return max(round(h * scale), 1), max(round(w * scale), 1)

    def _pad(self, inpt: Any, rows: int, columns: int) -> Any:
        """Pads by a number of rows and of columns, half of them on either side."""
        top, left = rows // 2, columns // 2
        if self.fill == "black":
            return self._call_kernel(v2.functional.pad, inpt, [left, top, columns - left, rows - top])
        h, w = inpt.shape[-2:]
        y, x = _mirrored_indices(-top, h + rows - top, h), _mirrored_indices(-left, w + columns - left, w)
        return tv_tensors.wrap(inpt.as_subclass(Tensor)[..., y[:, None], x], like=inpt)

    def _resize(self, inpt: Any, h: int, w: int) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return self._call_kernel(v2.functional.resize, inpt, [h, w], antialias=True)
        # torchvision's default for masks takes the corner pixel of each block, which shifts them by half a pixel
        nearest = v2.InterpolationMode.NEAREST_EXACT
        return tv_tensors.wrap(v2.functional.resize(inpt.as_subclass(Tensor), [h, w], nearest), like=inpt)


def _mirrored_indices(start: int, stop: int, side: int) -> Tensor:
    """Returns indices in 0..side - 1 for the positions `start` to `stop` of the image repeated in mirror images."""
    position = torch.arange(start, stop) % (2 * side)
    return torch.minimum(position, 2 * side - 1 - position)
