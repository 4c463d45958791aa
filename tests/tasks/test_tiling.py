import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_heads.tasks.tiling import predict_tiles, tile_weights

SIZES = [(64, 64), (65, 64), (63, 65), (1, 1), (5, 200), (129, 97), (128, 33)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("tile", [32, (64, 48), 7])
@pytest.mark.parametrize("size", SIZES)
def test_a_function_of_single_pixels_gives_the_result_of_the_whole_image(
    size: tuple[int, int], tile: int | tuple[int, int], overlap: float
) -> None:
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(predict_tiles(torch.exp, images, tile, overlap), images.exp())


@pytest.mark.parametrize("size", [(64, 64), (200, 150)])
def test_a_convolution_differs_only_slightly_by_the_margins_of_tiles(size: tuple[int, int]) -> None:
    """Only pixels at the margins of a tile, whose weights are small, lack context that the image has."""
    images, blur = torch.rand(1, 1, *size), nn.AvgPool2d(3, 1, padding=1)
    difference = (predict_tiles(blur, images, 64, 0.5) - blur(images)).abs()
    assert difference.max() < 0.001


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.99])
@pytest.mark.parametrize(("size", "tile"), [(64, 64), (65, 64), (100, 64), (1000, 64), (11, 1), (513, 7)])
def test_weights_add_up_to_one(size: int, tile: int, overlap: float) -> None:
    total = np.zeros(size)
    for start, weights in tile_weights(size, tile, overlap):
        assert weights.min() > 0
        total[start : start + tile] += weights.numpy()
    np.testing.assert_allclose(total, 1)


@pytest.mark.parametrize(
    ("size", "overlap", "count"),
    [
        (64, 0.5, 1),
        (65, 0.5, 2),
        (96, 0.5, 2),
        (97, 0.5, 3),
        (128, 0.0, 2),
        (129, 0.0, 3),
        (112, 0.25, 2),
        (113, 0.25, 3),
        (66, 0.999, 3),
    ],
)
def test_tiles_are_as_few_as_have_the_minimum_overlap(size: int, overlap: float, count: int) -> None:
    starts = [start for start, _ in tile_weights(size, 64, overlap)]
    assert len(starts) == count
    assert starts[0] == 0
    assert starts[-1] == size - 64
    gaps = np.diff(starts)
    assert all(0 < gap <= 64 - math.floor(64 * overlap) for gap in gaps)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("overlap", [0.125, 0.25, 0.5, 0.75])
def test_tiles_that_disagree_blend_smoothly(overlap: float) -> None:
    def black_or_white(tiles: Tensor) -> Tensor:
        black_or_white.calls += 1  # type: ignore[attr-defined]
        return torch.full_like(tiles, black_or_white.calls % 2)  # type: ignore[attr-defined]

    black_or_white.calls = 0  # type: ignore[attr-defined]
    blended = predict_tiles(black_or_white, torch.zeros(1, 1, 300, 333), 64, overlap)
    for dim in (-1, -2):
        # the weight of a raised cosine is steepest halfway, where its slope is 2 divided by the overlap's width
        assert blended.diff(dim=dim).abs().max() <= 2 / (64 * overlap)
    assert black_or_white.calls == math.prod(len(tile_weights(size, 64, overlap)) for size in (300, 333))  # type: ignore[attr-defined]
    assert blended.min() >= 0
    assert 1 >= blended.max() > 0.9


@pytest.mark.parametrize("size", [(20, 20), (9, 30), (2, 3), (1, 31)])
def test_small_images_are_reflected_on_both_sides(size: tuple[int, int]) -> None:
    seen: list[Tensor] = []
    images = torch.rand(2, 3, *size)
    result = predict_tiles(lambda tiles: seen.append(tiles) or tiles, images, 32)  # type: ignore[func-returns-value]
    assert torch.equal(result, images)
    before = [(32 - side) // 2 for side in size]
    margins = [(0, 0), (0, 0), *((b, 32 - side - b) for b, side in zip(before, size, strict=True))]
    np.testing.assert_array_equal(seen[0], np.pad(images.numpy(), margins, mode="reflect"))
    assert len(seen) == 1


def test_channels_and_dtype_are_those_of_the_function() -> None:
    images = torch.rand(1, 3, 70, 70, dtype=torch.float64)
    result = predict_tiles(lambda tiles: tiles.mean(1, keepdim=True).half(), images, 32)
    assert result.shape == (1, 1, 70, 70)
    assert result.dtype == torch.float16
    # no less accurate than rounding once before and once after blending
    torch.testing.assert_close(result.double(), images.mean(1, keepdim=True), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (0, 0.25, r"tiles to be at least 1 pixel high and wide, but got \(0, 0\)"),
        ((32, -1), 0.25, r"tiles to be at least 1 pixel high and wide, but got \(32, -1\)"),
        (32, 1.0, r"an overlap of tiles in \[0, 1\), but got 1.0"),
        (32, -0.1, r"an overlap of tiles in \[0, 1\), but got -0.1"),
        (32, float("nan"), r"an overlap of tiles in \[0, 1\), but got nan"),
    ],
)
def test_wrong_settings_are_refused(tile: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_tiles(torch.exp, torch.rand(1, 3, 64, 64), tile, overlap)


@pytest.mark.parametrize("function", [nn.AvgPool2d(2), lambda tiles: tiles.mean((2, 3))])
def test_a_result_of_another_size_is_refused(function: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"predictions \(b, k, 32, 32\), but got \(1, 3"):
        predict_tiles(function, torch.rand(1, 3, 64, 64), 32)
