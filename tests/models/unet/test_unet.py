import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightning_heads as lh
from lightning_heads import Encoder, param_groups
from lightning_heads.layers import Blur, SelfAttention
from lightning_heads.models import DynamicUnet

DECODERS = ["light", "fastai"]

OPTIONS: list[dict[str, Any]] = [
    {},
    {"upsample": "bilinear"},
    {"upsample": "pixel_shuffle"},
    {"upsample": "pixel_shuffle", "blur": True},
    {"upsample": "pixel_shuffle", "blur": True, "blur_final": False},
    {"self_attention": True},
    {"last_cross": "full"},
    {"last_cross": "half"},
    {"last_cross": "none"},
    {"bottle": True},
    {"y_range": (0.0, 1.0)},
    {"act": "leaky_relu"},
    {"act": "gelu"},
    {"act": "silu"},
    {"max_width": 24},
    *({"norm": norm, "upsample": "pixel_shuffle"} for norm in ("batch", "group", "instance", "weight", "spectral")),
    {"norm": "none", "upsample": "pixel_shuffle"},
    {"norm": "group", "upsample": "bilinear", "last_cross": "full", "bottle": True, "self_attention": True},
]


def _unet(outputs: int = 2, **options: Any) -> DynamicUnet:
    return DynamicUnet("test_resnet", outputs, pretrained=False, **options)


def _train_step(model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_output_has_the_images_size_and_every_parameter_a_gradient(decoder: Any, options: dict[str, Any]) -> None:
    model = _unet(3, decoder=decoder, **options)
    out = model(torch.rand(2, 3, 70, 49))
    assert out.shape == (2, 3, 70, 49)
    out.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("norm", ["batch", "group", "weight", "spectral", "none"])
def test_one_output_with_every_norm(decoder: Any, norm: Any) -> None:
    assert _unet(1, decoder=decoder, norm=norm)(torch.rand(2, 3, 64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": True, "upsample": "bilinear"}, "`blur` with `upsample='pixel_shuffle'`, but got bilinear"),
        ({"blur": True}, "`blur` with `upsample='pixel_shuffle'`"),
        ({"decoder": "segnet"}, "`decoder` to be light or fastai, but got 'segnet'"),
        ({"norm": "layer"}, "`norm` to be one of batch, group, .*'layer'"),
        ({"act": "tanh"}, "`act` to be one of gelu, relu, .*'tanh'"),
        ({"last_cross": "quarter"}, "`last_cross` to be full, half or none, but got 'quarter'"),
        ({"upsample": "nearest"}, "`upsample` to be bilinear or pixel_shuffle, but got 'nearest'"),
        ({"outputs": 0}, "`num_outputs` to be at least 1, but got 0"),
        ({"y_range": (1.0, 0.0)}, "from low to high"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _unet(**options)


def test_refuses_an_encoder_of_one_map() -> None:
    class Blocks(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    encoder = Encoder(Blocks(), image_size=32)
    with pytest.raises(
        ValueError, match="Expected Blocks to give maps of at least two scales or depths for the skip connections"
    ):
        DynamicUnet(encoder, 2)


@pytest.mark.parametrize(
    "given", [{"weights": "w.safetensors"}, {"in_channels": 3}, {"image_size": 64}, {"drop_path_rate": 0.1}], ids=str
)
def test_refuses_arguments_of_an_encoder_with_one_that_is_built(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="with an encoder's name, but got it with an `Encoder`: pass it to `Encoder`"):
        DynamicUnet(Encoder("test_resnet", pretrained=False), 2, **given)


def test_reads_a_local_file_of_weights(tmp_path: Path) -> None:
    backbone = timm.create_model("test_resnet", pretrained=False)
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    model = DynamicUnet("test_resnet", 2, weights=tmp_path / "backbone.pth")
    torch.testing.assert_close(model.encoder.backbone.body.conv1[0].weight, backbone.conv1[0].weight)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(1, 1), (17, 96), (33, 65), (64, 64), (97, 131)])
def test_any_size(decoder: Any, size: tuple[int, int]) -> None:
    assert _unet(decoder=decoder).eval()(torch.rand(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("last_cross", ["full", "half"])
@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_channels(decoder: Any, last_cross: Any, channels: int) -> None:
    model = _unet(decoder=decoder, last_cross=last_cross, in_channels=channels)
    assert model(torch.rand(2, channels, 33, 40)).shape == (2, 2, 33, 40)
    with pytest.raises(ValueError, match=rf"images \(b, {channels}, h, w\)"):
        model(torch.rand(2, channels + 1, 33, 40))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "dla46x_c"])
def test_encoders_with_fewer_or_more_scales(decoder: Any, name: str) -> None:
    """Encoders with maps of one scale only, from 1/4 on, and from full resolution on."""
    for last_cross in ("full", "half", "none"):
        model = DynamicUnet(name, 2, pretrained=False, decoder=decoder, last_cross=last_cross).train()
        size = (32, 64) if decoder == "fastai" else (33, 65)
        out = model(torch.rand(2, 3, *size))
        assert out.shape == (2, 2, *size)
        out.square().sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_takes_an_encoder_and_keeps_its_groups() -> None:
    encoder = Encoder("test_vit", pretrained=False, num_groups=3, normalize=False)
    model = DynamicUnet(encoder, 2)
    assert model.encoder is encoder
    assert len(param_groups(model)) == 4


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_groups_are_the_encoders_then_the_decoder(decoder: Any, name: str) -> None:
    model = DynamicUnet(name, 2, pretrained=False, decoder=decoder)
    *encoder, last = model.param_groups()
    assert [id(p) for group in encoder for p in group] == [id(p) for g in model.encoder.param_groups() for p in g]
    assert {id(p) for group in encoder for p in group} == {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in last} == {id(p) for p in model.parameters()} - {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in model.decoder.parameters()} <= {id(p) for p in last}
    assert len(last) == len({id(p) for p in last})


@pytest.mark.parametrize("decoder", DECODERS)
def test_max_width_limits_the_channels_of_stages(decoder: Any) -> None:
    model = DynamicUnet("resnet18", 2, pretrained=False, decoder=decoder, max_width=40)
    assert max(stage.width for stage in model.decoder.stages) <= 40
    free = DynamicUnet("resnet18", 2, pretrained=False, decoder=decoder)
    assert max(stage.width for stage in free.decoder.stages) > 40


@pytest.mark.parametrize("decoder", DECODERS)
def test_self_attention_is_only_in_the_third_stage_from_the_end(decoder: Any) -> None:
    model = _unet(decoder=decoder, self_attention=True)
    has = [any(isinstance(m, SelfAttention) for m in stage.modules()) for stage in model.decoder.stages]
    assert [i for i, found in enumerate(has) if found] == [len(has) - 3]
    assert not any(isinstance(m, SelfAttention) for m in _unet(decoder=decoder).modules())


@pytest.mark.parametrize("decoder", DECODERS)
def test_blur_can_be_left_out_in_the_last_stage(decoder: Any) -> None:
    def blurred(**options: Any) -> list[bool]:
        model = _unet(decoder=decoder, upsample="pixel_shuffle", **options)
        return [any(isinstance(m, Blur) for m in stage.modules()) for stage in model.decoder.stages]

    count = len(blurred())
    assert blurred() == [False] * count
    assert blurred(blur=True) == [True] * count
    assert blurred(blur=True, blur_final=False) == [True] * (count - 1) + [False]


@pytest.mark.parametrize("decoder", DECODERS)
def test_outputs_stay_in_y_range(decoder: Any) -> None:
    model = _unet(decoder=decoder, y_range=(-2.0, 3.0))
    with torch.no_grad():
        for parameter in model.decoder.out.parameters():
            parameter.mul_(1e3).add_(1)
        out = model(torch.rand(2, 3, 48, 48) * 10)
    assert out.min() >= -2
    assert out.max() <= 3
    assert out.max() - out.min() > 4


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("norm", ["batch", "weight", "spectral"])
def test_copies_are_equal_after_a_training_step(decoder: Any, norm: Any) -> None:
    model = _unet(decoder=decoder, norm=norm, self_attention=True, upsample="pixel_shuffle", blur=True)
    x = torch.rand(2, 3, 48, 40)
    before = model.eval()(x)
    _train_step(model.train(), x)
    with torch.no_grad():
        expected = model.eval()(x)
        assert not torch.equal(expected, before)
        torch.testing.assert_close(copy.deepcopy(model)(x), expected, atol=0, rtol=0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_pickles_after_a_training_step(decoder: Any) -> None:
    model = _unet(decoder=decoder, upsample="pixel_shuffle", blur=True)
    x = torch.rand(2, 3, 48, 40)
    _train_step(model.train(), x)
    restored = pickle.loads(pickle.dumps(model.eval()))
    torch.testing.assert_close(restored(x), model(x), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_frozen_encoder_does_not_change(name: str) -> None:
    model = DynamicUnet(name, 2, pretrained=False).train()
    lh.freeze_to(model, -1, norm="eval")
    before = copy.deepcopy(model.state_dict())
    _train_step(model, torch.rand(2, 3, 64, 64))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key, _ in model.decoder.named_parameters(prefix="decoder")} <= changed
    assert not any("encoder" in key for key in changed)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"last_cross": "full"}, {"last_cross": "none"}, {"y_range": (0, 1)}], ids=str)
def test_outputs_of_odd_sizes_equal_those_of_the_image_padded_by_its_edges(options: dict[str, Any]) -> None:
    model = _unet(**options).eval()
    x = torch.rand(2, 3, 70, 97)
    padded = model(F.pad(x, (0, 31, 0, 26), mode="replicate"))
    assert padded.shape[-2:] == (96, 128)
    torch.testing.assert_close(model(x), padded[..., :70, :97], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_multiples_of_the_coarsest_scale_are_not_padded(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _unet(decoder=decoder).eval()
    sizes = []
    pyramid = model.encoder.pyramid
    monkeypatch.setattr(model.encoder, "pyramid", lambda x: sizes.append(tuple(x.shape[-2:])) or pyramid(x))
    model(torch.rand(1, 3, 96, 128))
    model(torch.rand(1, 3, 95, 128))
    assert sizes == [(96, 128), (96 if decoder == "light" else 95, 128)]


@torch.no_grad()
@pytest.mark.parametrize("last_cross", ["full", "half"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_the_decoder_uses_the_image_itself(decoder: Any, last_cross: Any) -> None:
    """With fixed maps of the encoder, a pixel changes only the output around it, and nothing without `last_cross`."""

    def change(cross: Any) -> Tensor:
        torch.manual_seed(0)
        model = _unet(decoder=decoder, last_cross=cross).eval()
        maps = model.pyramid(torch.rand(1, 3, 64, 64))
        image = torch.rand(1, 3, 64, 64)
        other = image.clone()
        other[..., 20, 30] += 1
        return (model.decoder(other, [*maps]) - model.decoder(image, [*maps])).abs().amax((0, 1))

    difference = change(last_cross)
    assert difference[20, 30] > 0
    assert difference[:10].max() == difference[40:].max() == 0
    assert change("none").max() == 0


def test_images_are_padded_to_the_block_size_of_a_halo_model() -> None:
    with torch.device("meta"):
        model = DynamicUnet("halonet26t", 2, pretrained=False)
        assert model.encoder.meta.multiple == model.multiple == 256
        assert model(torch.zeros(1, 3, 97, 300)).shape == (1, 2, 97, 300)
        free = DynamicUnet("lambda_resnet26t", 2, pretrained=False)  # whose metadata has only a minimum size
        assert (free.encoder.meta.multiple, free.multiple) == (1, 32)
