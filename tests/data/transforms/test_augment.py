import warnings

import pytest
import torch
from torchvision import tv_tensors

from lightning_heads import AugTransforms
from lightning_heads.data.transforms.augment import warp_matrix


def test_disabled_augmentation_returns_the_input() -> None:
    x = torch.rand(3, 24, 32)
    still = AugTransforms(do_flip=False, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0)
    torch.testing.assert_close(still(x), x, atol=0, rtol=0)


def test_flips_are_the_eight_symmetries_of_the_square() -> None:
    x = torch.rand(1, 8, 8)
    flips = AugTransforms(flip_vert=True, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0)
    seen = {tuple(flips(x).flatten().tolist()) for _ in range(200)}
    expected = {tuple(torch.rot90(y, k, (1, 2)).flatten().tolist()) for y in (x, x.flip(-1)) for k in range(4)}
    assert seen == expected


def test_images_that_are_not_square_keep_their_shape() -> None:
    flips = AugTransforms(flip_vert=True)
    assert {flips(torch.rand(3, 16, 32)).shape for _ in range(50)} == {(3, 16, 32)}


def test_rotation_keeps_proportions_and_equals_torchvisions() -> None:
    from torchvision.transforms.v2 import functional

    x = torch.rand(1, 24, 48)
    x = functional.gaussian_blur(x, [5, 5])
    turn = AugTransforms(do_flip=False, max_zoom=1, max_warp=0, max_lighting=0, p_affine=1.0)
    for seed in range(5):
        torch.manual_seed(seed)
        params = turn.make_params([x])
        angle = torch.rad2deg(torch.asin(params["matrix"][1, 0] * 24 / 48)).item()
        ours = turn.transform(x, params)
        theirs = functional.rotate(x, angle, functional.InterpolationMode.BILINEAR)
        inner = (slice(None), slice(6, -6), slice(10, -10))
        torch.testing.assert_close(ours[inner], theirs[inner], atol=2e-3, rtol=0)


def test_warp_equals_fastais() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.vision.augment import _WarpCoord

    grid = torch.rand(1, 5, 7, 2) * 2 - 1
    theirs = _WarpCoord(p=1.0, draw_x=0.2, draw_y=-0.1)
    theirs.before_call(torch.rand(1, 3, 5, 7))
    expected = theirs(grid.clone())
    points = torch.cat([grid, torch.ones(1, 5, 7, 1)], dim=-1) @ warp_matrix(0.2, -0.1).T
    torch.testing.assert_close(points[..., :2] / points[..., 2:], expected, atol=1e-5, rtol=1e-5)


def test_masks_move_with_their_images_and_are_not_interpolated() -> None:
    pattern = (torch.rand(1, 40, 40) > 0.5).float()
    image, mask = tv_tensors.Image(pattern), tv_tensors.Mask(pattern.to(torch.uint8))
    for _ in range(20):
        moved, moved_mask = AugTransforms(flip_vert=True, max_lighting=0)(image, mask)
        assert set(moved_mask.unique().tolist()) <= {0, 1}
        agreement = ((moved > 0.5) == (moved_mask > 0)).float().mean()
        assert agreement > 0.9


def test_lighting_has_fastais_strength() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.vision.augment import Brightness, TensorImage

    gray = torch.full((3, 4, 4), 0.5)
    light = AugTransforms(do_flip=False, max_rotate=0, max_zoom=1, max_warp=0, p_lighting=1.0)
    params = [light.make_params([gray])["brightness"] for _ in range(500)]
    levels = torch.sigmoid(torch.tensor(params))
    theirs = Brightness(max_lighting=0.2, p=1.0)(TensorImage(torch.full((500, 3, 1, 1), 0.5)), split_idx=0)
    assert levels.min().item() == pytest.approx(theirs.min().item(), abs=0.02)
    assert levels.max().item() == pytest.approx(theirs.max().item(), abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"), [({"min_zoom": 2.0}, "min_zoom"), ({"max_lighting": 1.0}, "lighting")]
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugTransforms(**settings)
