"""Predictions of large images in overlapping tiles."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..encoders import EncoderMeta
from ..utils.plain import size_pair


class Tiling:
    """Predicts images in tiles if they are larger than the encoder takes, or than fit in memory.

    Args:
        meta: The encoder's metadata; if it takes only one size, tiles have that size.
        size: Height and width of a tile, in pixels; None for whole images.
        overlap: Minimum overlap of neighboring tiles, as a fraction of the tile's height and width.

    Raises:
        ValueError: If `size` or `overlap` is out of range, or the encoder takes only another size.
    """

    def __init__(self, meta: EncoderMeta, size: int | tuple[int, int] | None = None, overlap: float = 0.25) -> None:
        tile = None if size is None else size_pair(size)
        if meta.fixed_size and tile is not None and tile != meta.input_size:
            raise ValueError(
                f"Expected `tile_size` to be {meta.input_size}, the only size that {meta.name} takes, but got {size}"
            )
        self.fixed = meta.fixed_size
        self.size = meta.input_size if meta.fixed_size else tile
        self.overlap = overlap
        check_tiles(self.size or (1, 1), overlap)

    def __call__(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Applies a function to images `(b, c, h, w)`, in tiles if they are larger than one; returns `(b, k, h, w)`."""
        if self.size is None:
            return function(images)
        height, width = self.size
        if not self.fixed:
            height, width = min(height, images.shape[-2]), min(width, images.shape[-1])
        return predict_tiles(function, images, (height, width), self.overlap)


def predict_tiles(
    function: Callable[[Tensor], Tensor], images: Tensor, tile: int | tuple[int, int], overlap: float = 0.25
) -> Tensor:
    """Applies a function to images `(b, c, h, w)` tile by tile, and blends the results to `(b, k, h, w)` without seams.

    Each tile is weighted by a window that falls off smoothly towards its edges; see `tile_weights`. Images smaller than
    a tile are padded by reflection on all sides. The function is called with one tile of every image at a time.

    Args:
        function: Maps tiles `(b, c, *tile)` to `(b, k, *tile)`.
        images: The images.
        tile: Height and width of a tile, in pixels.
        overlap: Minimum overlap of neighboring tiles, as a fraction of the tile's height and width; with 0 seams are
            visible.

    Raises:
        ValueError: If `tile` or `overlap` is out of range, or a result differs in size from its tile.

    >>> images = torch.rand(1, 3, 100, 70)
    >>> torch.allclose(predict_tiles(torch.sqrt, images, 64), images.sqrt())
    True
    """
    tile = size_pair(tile)
    check_tiles(tile, overlap)
    height, width = images.shape[-2:]
    rows, columns = (_reflected_indices(*sizes, images.device) for sizes in zip((height, width), tile, strict=True))
    images = images[:, :, rows][..., columns]
    result = blended = images.new_zeros(0)
    for top, row_weights in tile_weights(len(rows), tile[0], overlap):
        for left, column_weights in tile_weights(len(columns), tile[1], overlap):
            place = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
            result = function(images[place])
            if result.ndim != 4 or tuple(result.shape[-2:]) != tile:
                raise ValueError(f"Expected predictions (b, k, {tile[0]}, {tile[1]}), but got {tuple(result.shape)}")
            if not blended.numel():
                # float32 at least, as sums of many tiles are inaccurate in half precision
                dtype = torch.promote_types(result.dtype, torch.float32)
                blended = result.new_zeros((*result.shape[:2], *images.shape[-2:]), dtype=dtype)
            blended[place] += (row_weights[:, None] * column_weights).to(blended) * result
    top, left = (len(rows) - height) // 2, (len(columns) - width) // 2
    return blended[..., top : top + height, left : left + width].to(result.dtype)


def tile_weights(size: int, tile: int, overlap: float) -> list[tuple[int, Tensor]]:
    """Returns the start of each tile along one side of an image, and the weights of its pixels, `(tile,)`.

    Tiles are spaced evenly, as few as have the minimum overlap. Weights are a raised cosine over the tile, normalized
    so that those of all tiles sum to 1 at every pixel.

    >>> [start for start, _ in tile_weights(100, 64, overlap=0.25)]
    [0, 36]
    """
    step = tile - min(round(tile * overlap), tile - 1)
    count = 1 + math.ceil((size - tile) / step)
    starts = [round(i * (size - tile) / max(count - 1, 1)) for i in range(count)]
    window = (math.pi * (torch.arange(tile, dtype=torch.float64) + 0.5) / tile).sin().square()
    total = torch.zeros(size, dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += window
    return [(start, window / total[start : start + tile]) for start in starts]


def check_tiles(tile: tuple[int, int], overlap: float) -> None:
    """Raises ValueError unless tiles of that height, width and overlap can cover an image."""
    if min(tile) < 1:
        raise ValueError(f"Expected tiles to be at least 1 pixel high and wide, but got {tile}")
    if not 0 <= overlap < 1:
        raise ValueError(f"Expected an overlap of tiles in [0, 1), but got {overlap}")


def _reflected_indices(size: int, min_size: int, device: torch.device) -> Tensor:
    """Returns indices that pad `size` pixels by repeated reflection on both sides to at least `min_size`."""
    length = max(size, min_size)
    indices = torch.arange(length, device=device) - (length - size) // 2
    period = max(2 * (size - 1), 1)
    return (indices % period).minimum(-indices % period)
