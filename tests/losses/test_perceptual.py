import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg

from lightning_heads import Encoder
from lightning_heads.losses.perceptual import FeatureLoss, StyleLoss, gram_matrix


@pytest.fixture(scope="module")
def vgg_encoder() -> Encoder:
    with torch.device("meta"):  # the classifier is large and not used
        model = vgg.vgg16_bn()
    model.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    encoder = Encoder(model, readout=False)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):  # not those of a new layer, which normalize nothing
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return encoder


@pytest.fixture(scope="module")
def bare_vgg(vgg_encoder: Encoder) -> nn.Sequential:
    """The layers of torchvision with the same weights."""
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=True).eval()
    layers.load_state_dict(vgg_encoder.backbone.body.features.state_dict())
    return layers


def _pair(channels: int = 3, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.rand(2, channels, size, size), torch.rand(2, channels, size, size)


def _normalized(x: Tensor) -> Tensor:
    return (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def _before_pools(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Returns the input of each max-pool layer, for normalized images."""
    maps = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(x)
        x = layer(x)
    return maps


def _gram(x: Tensor) -> Tensor:
    return torch.einsum("bihw,bjhw->bij", x, x) / x[0].numel()


def test_pyramid_of_vgg_is_the_inputs_of_its_max_pools(vgg_encoder: Encoder, bare_vgg: nn.Sequential) -> None:
    image, _ = _pair()
    with torch.no_grad():
        expected = _before_pools(bare_vgg, _normalized(image))
        *maps, _ = vgg_encoder.eval().pyramid(image)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    torch.testing.assert_close(maps, expected, atol=1e-3, rtol=1e-3)


def test_feature_loss_is_fastais(vgg_encoder: Encoder, bare_vgg: nn.Sequential) -> None:
    outputs, target = (_normalized(x) for x in _pair())
    with torch.no_grad():
        ours, theirs = (_before_pools(bare_vgg, x)[2:5] for x in (outputs, target))
        parts = [F.l1_loss(outputs, target)]
        parts += [F.l1_loss(x, y) * w for x, y, w in zip(ours, theirs, (5, 15, 2), strict=True)]
        grams = [F.l1_loss(_gram(x), _gram(y)) for x, y in zip(ours, theirs, strict=True)]
        parts += [gram * w**2 * 5e3 for gram, w in zip(grams, (5, 15, 2), strict=True)]
    torch.manual_seed(0)
    loss = FeatureLoss(vgg_encoder)(*_pair())
    assert min(parts) > 1e-4 * max(parts)  # no term is too small to matter in the sum
    torch.testing.assert_close(loss, torch.stack(parts).sum(), atol=0, rtol=1e-5)


def test_style_loss_is_a_sum_of_relative_errors(vgg_encoder: Encoder, bare_vgg: nn.Sequential) -> None:
    outputs, target = _pair()
    style = torch.rand(3, 48, 32)
    with torch.no_grad():
        ours, theirs, wanted = (_before_pools(bare_vgg, _normalized(x)) for x in (outputs, target, style[None]))
        expected = (ours[2] - theirs[2]).square().mean() / theirs[2].square().mean()
        for x, y, weight in zip(ours[:4], wanted[:4], (1, 2, 3, 4), strict=True):
            expected += 7 * weight * (_gram(x) - _gram(y)).square().mean() / _gram(y).square().mean()
        steps = (outputs[..., 1:] - outputs[..., :-1], outputs[..., 1:, :] - outputs[..., :-1, :])
        expected += 0.5 * sum(step.abs().mean() for step in steps)
    loss = StyleLoss(vgg_encoder, style, layer_weights=(1, 2, 3, 4), style_weight=7, smoothness_weight=0.5)
    torch.testing.assert_close(loss(outputs, target), expected)


def test_the_state_dict_contains_the_style() -> None:
    encoder = Encoder("test_resnet", pretrained=False, readout=False)
    loss = StyleLoss(encoder, torch.rand(3, 64, 64), layers=(0, 2))
    unknown = StyleLoss(Encoder("test_resnet", pretrained=False, readout=False), None, layers=(0, 2))
    assert loss.has_style
    assert not unknown.has_style
    unknown.load_state_dict(loss.state_dict())
    assert unknown.has_style
    pair = _pair()
    torch.testing.assert_close(unknown(*pair), loss(*pair), atol=0, rtol=0)


def test_gram_matrix_is_in_float32_under_autocast() -> None:
    x = torch.rand(2, 8, 5, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(x)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram, _gram(x.double()).float())


@pytest.mark.parametrize("kind", ["feature", "style"])
def test_encoder_and_modes_are_unchanged(kind: str) -> None:
    encoder = Encoder("test_resnet", pretrained=False, readout=False)
    loss: nn.Module
    if kind == "feature":
        loss = FeatureLoss(encoder, layers=(1, 2), layer_weights=(1, 1))
    else:
        loss = StyleLoss(encoder, torch.rand(3, 32, 32), layers=(1, 2))
    torch.manual_seed(0)
    expected = loss.eval()(*_pair())
    loss.train()
    assert all(module.training for module in loss.modules())  # the trainer warns of any that is not
    before = copy.deepcopy(encoder.state_dict())
    torch.manual_seed(0)
    outputs, target = (x.requires_grad_() for x in _pair())
    value = loss(outputs, target)
    value.backward()
    torch.testing.assert_close(value, expected, atol=0, rtol=0)
    assert all(module.training for module in loss.modules())
    assert outputs.grad is not None
    assert (outputs.grad != 0).any()
    assert target.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_grayscale_equals_three_equal_channels(name: str) -> None:
    import timm

    model = timm.create_model(name, pretrained=False)
    gray = Encoder(copy.deepcopy(model), in_channels=1, readout=False)
    mean, std = (getattr(gray, key).flatten().tolist() * 3 for key in ("mean", "std"))
    color = Encoder(model, mean=mean, std=std, readout=False)
    outputs, target = _pair(1, 64)
    losses = [FeatureLoss(encoder, layers=(0,), layer_weights=(3,)) for encoder in (gray, color)]
    expected = losses[1](outputs.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    torch.testing.assert_close(losses[0](outputs, target), expected)


def test_wrong_settings_are_refused() -> None:
    encoder = Encoder("test_resnet", pretrained=False, readout=False)
    with pytest.raises(ValueError, match=r"layers to be from 0 to 4, the maps of test_resnet, but got \[2, 5\]"):
        FeatureLoss(encoder, layers=(2, 5), layer_weights=(1, 1))
    with pytest.raises(ValueError, match=r"from 0 to 4, the maps of test_resnet, but got \[-1, -1\]"):
        StyleLoss(encoder, None, layers=(-1,))
    with pytest.raises(ValueError, match="at least one feature layer, but got none"):
        StyleLoss(encoder, None, layers=())
    with pytest.raises(ValueError, match="layer weights to have 1 entries, one a layer, but got 3"):
        FeatureLoss(encoder, layers=(0,))
    with pytest.raises(ValueError, match=r"targets of \(2, 3, 32, 32\), but got \(2, 3, 16, 16\)"):
        FeatureLoss(encoder)(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 16, 16))
