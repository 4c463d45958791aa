"""Space-to-depth of 2x2 pixel blocks, and its inverse."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .padding import crop, pad_to_multiple


def to_blocks(image: Tensor) -> Tensor:
    """Moves each 2x2 block of pixels into the channels: `(b, c, h, w)` to `(b, 4c, ceil(h / 2), ceil(w / 2))`.

    An odd height or width is padded with zeros.
    """
    image = pad_to_multiple(image, 2, "constant")
    if torch.compiler.is_exporting():
        # the view within `pixel_unshuffle` would compare sizes, and fix the remainder of an earlier padding
        return torch.stack([image[..., i::2, j::2] for i in range(2) for j in range(2)], dim=2).flatten(1, 2)
    return F.pixel_unshuffle(image, 2)


def from_blocks(x: Tensor, size: Sequence[int]) -> Tensor:
    """Inverts `to_blocks` by a pixel shuffle (Shi 2016): `(b, 4c, h, w)` to `(b, c, *size)`, without its padding.

    >>> import torch
    >>> image = torch.rand(1, 3, 5, 7)
    >>> bool((from_blocks(to_blocks(image), (5, 7)) == image).all())
    True
    """
    return crop(F.pixel_shuffle(x, 2), size)
