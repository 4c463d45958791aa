"""Images as blocks of 2x2 pixels: full detail at half the resolution."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def to_blocks(image: Tensor) -> Tensor:
    """Lays the pixels of each 2x2 block side by side: `(b, c, h, w)` to `(b, 4c, ceil(h / 2), ceil(w / 2))`."""
    height, width = image.shape[-2:]
    return F.pixel_unshuffle(F.pad(image, (0, width % 2, 0, height % 2)), 2)


def from_blocks(x: Tensor, size: Sequence[int]) -> Tensor:
    """Puts them back: `(b, 4c, h, w)` to `(b, c, *size)`; what `to_blocks` padded is cut off (Shi 2016).

    >>> import torch
    >>> image = torch.rand(1, 3, 5, 7)
    >>> bool((from_blocks(to_blocks(image), (5, 7)) == image).all())
    True
    """
    return F.pixel_shuffle(x, 2)[..., : size[0], : size[1]]
