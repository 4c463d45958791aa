"""Bringing images to one size."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class ResizeTo(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Brings uint8 images to one size, and masks with them, which are sampled at the nearest pixel.

    Args:
        size: Height and width, in pixels.
        method: `crop` keeps proportions and cuts the longer side, at random while training; `squish` does not keep
            proportions; `pad` keeps them and fills; `none` keeps the scale too, cuts like `crop` and fills what is
            smaller.
        random: Whether a crop is at a random place instead of the center.
        whole: Whether to bring images to that scale alone, so that nothing is cut or filled and sizes differ.
        fill: `black`, or `mirror` to repeat the image in mirrors; with None nothing is filled and sizes differ.
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
        """Draws the place of the crop as fractions of what is left over."""
        return {"place": [float(torch.rand(())) if self.random else 0.5 for _ in range(2)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes an image or a mask."""
        height, width = self.size
        h, w = self._scaled(*inpt.shape[-2:])
        out = self._resize(inpt, h, w)
        if self.whole:
            return out
        if self.fill is None:
            height, width = min(h, height), min(w, width)
        elif h < height or w < width:
            out = self._filled(out, max(height - h, 0), max(width - w, 0))
        top, left = (
            round(place * (have - want))
            for place, have, want in zip(params["place"], out.shape[-2:], (height, width), strict=True)
        )
        return self._call_kernel(v2.functional.crop, out, top, left, height, width)

    def _scaled(self, h: int, w: int) -> tuple[int, int]:
        height, width = self.size
        if self.method == "squish":
            return height, width
        if self.method == "none":
            return h, w
        choose = max if self.method == "crop" else min
        scale = choose(height / h, width / w)
        return max(round(h * scale), 1), max(round(w * scale), 1)

    def _filled(self, inpt: Any, rows: int, columns: int) -> Any:
        """Adds rows and columns, as many on either side."""
        top, left = rows // 2, columns // 2
        if self.fill == "black":
            return self._call_kernel(v2.functional.pad, inpt, [left, top, columns - left, rows - top])
        h, w = inpt.shape[-2:]
        y, x = _mirrored(-top, h + rows - top, h), _mirrored(-left, w + columns - left, w)
        return tv_tensors.wrap(inpt.as_subclass(Tensor)[..., y[:, None], x], like=inpt)

    def _resize(self, inpt: Any, h: int, w: int) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return self._call_kernel(v2.functional.resize, inpt, [h, w], antialias=True)
        # torchvision's own choice for masks takes the corner of each block, half a pixel off the image
        nearest = v2.InterpolationMode.NEAREST_EXACT
        return tv_tensors.wrap(v2.functional.resize(inpt.as_subclass(Tensor), [h, w], nearest), like=inpt)


def _mirrored(start: int, stop: int, side: int) -> Tensor:
    """Returns the pixel of a side for each place, however far beyond it."""
    place = torch.arange(start, stop) % (2 * side)
    return torch.minimum(place, 2 * side - 1 - place)
