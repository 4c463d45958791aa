import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_heads.data.transforms.degrade import Crappify, Degradation, Downscale, Grayscale, Noise


def _photo(height: int = 96, width: int = 120, channels: int = 3) -> Tensor:
    """A picture of smooth shades and edges, in steps of 1/255."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [0.45 + 0.2 * torch.sin(x / (5 + c) + y / 9) + 0.2 * ((x // 16 + y // 16) % 2) for c in range(channels)]
    return (torch.stack(waves) * 255).round() / 255


def _to_pillow(image: Tensor) -> Image.Image:
    array = (image * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _from_pillow(image: Image.Image) -> Tensor:
    array = np.atleast_3d(np.asarray(image))
    return torch.from_numpy(array.copy()).movedim(-1, 0) / 255


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_downscale_is_pillows_bicubic_both_ways(scale: int, channels: int) -> None:
    photo = _photo(channels=channels)
    small = _to_pillow(photo).resize((120 // scale, 96 // scale), Image.Resampling.BICUBIC)
    expected = _from_pillow(small.resize((120, 96), Image.Resampling.BICUBIC))
    out = Downscale(scale)(photo)
    assert out.shape == photo.shape
    assert (out - expected).abs().max() < 2.1 / 255  # a step of the small image, and half of one of Pillow's result
    assert (out - photo).abs().mean() > 5 * (out - expected).abs().mean()


@pytest.mark.parametrize(("height", "width"), [(97, 122), (99, 123), (3, 5)])
def test_downscale_keeps_size_and_scale_if_the_scale_does_not_divide_the_size(height: int, width: int) -> None:
    photo = _photo(height, width)
    out = Downscale(4)(photo)
    assert out.shape == photo.shape
    whole = np.pad(photo.numpy(), ((0, 0), (0, -height % 4), (0, -width % 4)), mode="edge")
    h, w = whole.shape[1:]
    small = _to_pillow(torch.from_numpy(whole)).resize((w // 4, h // 4), Image.Resampling.BICUBIC)
    expected = _from_pillow(small.resize((w, h), Image.Resampling.BICUBIC))[:, :height, :width]
    assert (out - expected).abs().max() < 2.5 / 255
    prepared = Downscale(4).prepare(_from_pillow(small))[:, :height, :width]
    assert (out - prepared).abs().max() < 2.5 / 255


@pytest.mark.parametrize("scale", [1.3, 1.5, 2, 3, 4.7])
def test_any_scale_keeps_any_size(scale: float) -> None:
    for side in range(1, 40):
        assert Downscale(scale)(torch.rand(1, side, 40 - side)).shape == (1, side, 40 - side)


@pytest.mark.parametrize("degradation", [Crappify(2), Downscale(2, 50), Grayscale()])
def test_transparency_is_refused_where_unsupported(degradation: Degradation) -> None:
    with pytest.raises(ValueError, match=r"images of 1 or 3 channels for (JPEG|Grayscale), but got 4"):
        degradation(torch.rand(4, 24, 24))


def test_jpeg_is_pillows() -> None:
    photo = _photo()
    small = _to_pillow(photo).resize((60, 48), Image.Resampling.BICUBIC)
    expected = _from_pillow(_compressed(small, 20).resize((120, 96), Image.Resampling.BICUBIC))
    out = Downscale(2, jpeg_quality=20)(photo)
    plain = Downscale(2)(photo)
    assert (out - expected).abs().mean() < 1 / 255
    assert (out - expected).abs().mean() < 0.2 * (out - plain).abs().mean()


def test_quality_is_drawn_from_its_range() -> None:
    photo = _photo()
    single = [Downscale(2, jpeg_quality=quality)(photo) for quality in (10, 11, 12)]
    seen = {next(i for i, one in enumerate(single) if one.equal(out)) for out in _repeated(Downscale(2, (10, 12)))}
    assert seen == {0, 1, 2}


def _repeated(degradation: Degradation) -> list[Tensor]:
    return [degradation(_photo()) for _ in range(30)]


@pytest.mark.parametrize("degradation", [Downscale(3), Crappify(3)])
def test_small_images_to_predict_are_upscaled(degradation: Downscale) -> None:
    photo = _photo(20, 32)
    expected = _from_pillow(_to_pillow(photo).resize((96, 60), Image.Resampling.BICUBIC))
    assert (degradation.prepare(photo) - expected).abs().max() < 1.1 / 255


def test_gray_is_pillows_luminance() -> None:
    photo = torch.rand(3, 24, 32)
    expected = _from_pillow(_to_pillow(photo).convert("L"))
    assert (Grayscale()(photo) - expected).abs().max() < 1.6 / 255
    assert Grayscale().prepare(photo).equal(Grayscale()(photo))
    assert Grayscale()(photo[:1]).equal(photo[:1])


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_noise_has_the_given_standard_deviation(level: float) -> None:
    noisy = Noise(0.05)(torch.full((3, 200, 200), level)).numpy()
    assert abs(noisy.mean() - level) < 5 * 0.05 / np.sqrt(noisy.size)
    assert abs(noisy.std() - 0.05) < 5 * 0.05 / np.sqrt(2 * noisy.size)


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_shot_noise_has_a_variance_proportional_to_brightness(level: float) -> None:
    noisy = Noise(0.0, photons=400)(torch.full((3, 200, 200), level)).numpy()
    assert abs(noisy.mean() - level) < 0.001
    assert noisy.var() == pytest.approx(level / 400, rel=0.03)


def test_noise_is_drawn_from_its_range_and_stays_in_0_to_1() -> None:
    deviations = [float(Noise((0.02, 0.2))(torch.full((1, 64, 64), 0.5)).std()) for _ in range(40)]
    assert 0.015 < min(deviations) < 0.05
    assert 0.16 < max(deviations) < 0.22
    noisy = Noise(0.5)(torch.rand(3, 32, 32))
    assert (noisy.min(), noisy.max()) == (0, 1)


def test_crappify_writes_the_quality_in_white() -> None:
    black = torch.zeros(3, 96, 96)
    torch.manual_seed(3)
    written = Crappify(2, jpeg_quality=(60, 70))(black)
    assert written.max() > 0.8
    assert (written > 0.3).float().mean() < 0.1
    assert Crappify(2, text=False)(black).max() == 0
    places = {int((Crappify(2)(black)[0] > 0.5).nonzero()[0, 0]) for _ in range(8)}
    assert len(places) > 3


def test_crappify_without_text_is_pillows_bilinear_and_jpeg() -> None:
    photo = _photo()
    out = Crappify(2, 30, text=False)(photo)
    distances = {}
    for kind in ("BILINEAR", "BICUBIC"):
        small = _to_pillow(photo).resize((60, 48), Image.Resampling[kind])
        for quality in (15, 30, 60):
            expected = _from_pillow(_compressed(small, quality).resize((120, 96), Image.Resampling.BICUBIC))
            distances[kind, quality] = float((out - expected).abs().mean())
    assert distances["BILINEAR", 30] < 1.5 / 255
    assert all(distances["BILINEAR", 30] < 0.5 * d for key, d in distances.items() if key != ("BILINEAR", 30))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degradation", [Downscale(2, (20, 90)), Crappify(2), Noise((0, 0.2), (10, 100))])
def test_degradations_repeat_with_torchs_seed_and_do_not_change_their_input(
    degradation: Degradation, channels: int
) -> None:
    photo = _photo(channels=channels)
    kept = photo.clone()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(degradation(photo))
    assert outs[0].equal(outs[1])
    assert not outs[0].equal(outs[2])
    assert photo.equal(kept)
    assert outs[0].shape == photo.shape
    assert outs[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Downscale(1), "`scale` to be above 1, but got 1"),
        (lambda: Downscale(2, 0), "`jpeg_quality` in 1 to 100, but got 0"),
        (
            lambda: Crappify(2, (70, 10)),
            r"`jpeg_quality` to be an ascending range, but got \(70, 10\)",
        ),
        (lambda: Noise(-0.1), "`sigma` to be at least 0, but got -0.1"),
        (lambda: Noise((0.2, 0.1)), r"`sigma` to be an ascending range, but got \(0.2, 0.1\)"),
        (lambda: Noise(0.1, photons=0), "`photons` to be above 0, but got 0"),
    ],
)
def test_wrong_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
