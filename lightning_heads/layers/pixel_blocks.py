"""Space-to-depth of 2x2 pixel blocks, and its inverse."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def to_blocks(image: Tensor) -> Tensor:
    """Moves each 2x2 block of pixels into the channels: `(b, c, h, w)` to `(b, 4c, ceil(h / 2), ceil(w / 2))`.

    An odd height or width is padded with zeros.
    """
    height, width = image.shape[-2:]
    return F.pixel_unshuffle(F.pad(image, (0, width % 2, 0, height % 2)), 2)


def from_blocks(x: Tensor, size: Sequence[int]) -> Tensor:
    """Inverts `to_blocks` by a pixel shuffle (Shi 2016): `(b, 4c, h, w)` to `(b, c, *size)`, without its padding.

    >>> import torch
    >>> image = torch.rand(1, 3, 5, 7)
    >>> bool((from_blocks(to_blocks(image), (5, 7)) == image).all())
    True
    """
    return F.pixel_shuffle(x, 2)[..., : size[0], : size[1]]
