import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from lightning_heads.data.transforms.resize import ResizeTo


@pytest.mark.parametrize("method", ["crop", "squish", "pad", "none"])
@pytest.mark.parametrize("shape", [(50, 90), (90, 50), (7, 500), (24, 24)])
def test_resize_gives_the_size(method: str, shape: tuple[int, int]) -> None:
    x = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
    out = ResizeTo((24, 32), method, random=True)(x)
    assert (out.shape, out.dtype) == ((3, 24, 32), torch.uint8)


def test_center_crop_equals_torchvisions() -> None:
    from torchvision.transforms import v2

    x = torch.randint(0, 255, (3, 60, 90), dtype=torch.uint8)
    reference = v2.Compose([v2.Resize(30, antialias=True), v2.CenterCrop(30)])
    difference = ResizeTo((30, 30))(x).int() - reference(x).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("method", ["crop", "squish", "pad", "none"])
def test_masks_are_aligned_with_their_images(method: str) -> None:
    ramp = torch.arange(240, dtype=torch.uint8).expand(1, 240, 240)
    image, mask = ResizeTo((40, 40), method, random=True)(tv_tensors.Image(ramp), tv_tensors.Mask(ramp))
    assert isinstance(mask, tv_tensors.Mask)
    assert (image.int() - mask.int())[..., 2:-2].abs().max() <= 1
    assert len(mask.unique()) == 40


@pytest.mark.parametrize(
    ("method", "expected"), [("crop", (24, 48)), ("squish", (24, 32)), ("pad", (16, 32)), ("none", (40, 80))]
)
def test_whole_images_are_only_scaled(method: str, expected: tuple[int, int]) -> None:
    x = torch.randint(0, 255, (3, 40, 80), dtype=torch.uint8)
    assert ResizeTo((24, 32), method, whole=True)(x).shape == (3, *expected)


def test_unscaled_crops_equal_torchvisions() -> None:
    from torchvision.transforms import v2

    for shape in ((60, 90), (20, 90), (20, 10)):
        x = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
        assert (ResizeTo((30, 40), "none")(x) == v2.CenterCrop((30, 40))(x)).all()


@pytest.mark.parametrize("shape", [(20, 31), (7, 5), (2, 90), (60, 90)])
def test_mirror_padding_equals_numpys_and_without_fill_nothing_is_padded(shape: tuple[int, int]) -> None:
    x = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
    rows, columns = (max(want - have, 0) for want, have in zip((30, 40), shape, strict=True))
    sides = [(n // 2, n - n // 2) for n in (0, rows, columns)]
    expected = torch.from_numpy(np.pad(x.numpy(), sides, mode="symmetric"))
    center = ResizeTo((30, 40), "none")
    out = ResizeTo((30, 40), "none", fill="mirror")(tv_tensors.Image(x))
    assert isinstance(out, tv_tensors.Image)
    assert out.as_subclass(torch.Tensor).equal(center(expected))
    unfilled = ResizeTo((30, 40), "none", fill=None)(x)
    assert unfilled.shape[1:] == (min(30, shape[0]), min(40, shape[1]))
    (top, bottom), (left, right) = sides[1:]
    assert unfilled.equal(center(x)[:, top : 30 - bottom, left : 40 - right])


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="crop, squish or pad, but got 'stretch'"):
        ResizeTo((8, 8), "stretch")
