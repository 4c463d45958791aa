import pytest
import torch

from lightning_heads.data.resize import ResizeTo


@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
@pytest.mark.parametrize("shape", [(50, 90), (90, 50), (7, 500), (24, 24)])
def test_resize_gives_the_size(method: str, shape: tuple[int, int]) -> None:
    x = torch.randint(0, 255, (3, *shape), dtype=torch.uint8)
    out = ResizeTo((24, 32), method, random=True)(x)
    assert (out.shape, out.dtype) == ((3, 24, 32), torch.uint8)


def test_centre_crop_equals_torchvisions() -> None:
    from torchvision.transforms import v2

    x = torch.randint(0, 255, (3, 60, 90), dtype=torch.uint8)
    reference = v2.Compose([v2.Resize(30, antialias=True), v2.CenterCrop(30)])
    difference = ResizeTo((30, 30))(x).int() - reference(x).int()
    assert difference.abs().max() <= 1


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="crop, squish or pad, but got 'stretch'"):
        ResizeTo((8, 8), "stretch")
