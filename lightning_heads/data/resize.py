"""Bringing images to one size."""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms import v2


class ResizeTo(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Brings uint8 images to one size.

    Args:
        size: Height and width, in pixels.
        method: `crop` keeps proportions and cuts the longer side, at random while training; `squish` does not keep
            proportions; `pad` keeps them and fills with black.
        random: Whether a crop is at a random place instead of the centre.
    """

    def __init__(self, size: Sequence[int], method: str = "crop", random: bool = False) -> None:
        super().__init__()
        if method not in ("crop", "squish", "pad"):
            raise ValueError(f"Expected `resize` to be crop, squish or pad, but got {method!r}")
        self.size, self.method, self.random = (size[0], size[1]), method, random

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the place of the crop as fractions of what is left over."""
        return {"place": [float(torch.rand(())) if self.random else 0.5 for _ in range(2)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resizes an image or a mask."""
        height, width = self.size
        if self.method == "squish":
            return self._call_kernel(v2.functional.resize, inpt, [height, width], antialias=True)
        h, w = inpt.shape[-2:]
        choose = max if self.method == "crop" else min
        scale = choose(height / h, width / w)
        h, w = max(round(h * scale), 1), max(round(w * scale), 1)
        out = self._call_kernel(v2.functional.resize, inpt, [h, w], antialias=True)
        if self.method == "crop":
            top, left = (
                round(place * (have - want))
                for place, have, want in zip(params["place"], (h, w), self.size, strict=True)
            )
            return self._call_kernel(v2.functional.crop, out, top, left, height, width)
        left, top = (width - w) // 2, (height - h) // 2
        return self._call_kernel(v2.functional.pad, out, [left, top, width - w - left, height - h - top])
