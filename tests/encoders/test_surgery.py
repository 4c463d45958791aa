import warnings

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg11

from lightning_heads import Encoder, create_body, create_head
from lightning_heads.encoders import set_in_channels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.vision.learner import _update_first_layer
    from fastai.vision.learner import create_body as fastai_body


@pytest.mark.parametrize("cut", [None, -2, 8, "avgpool", lambda m: nn.Sequential(*[*m.children()][:-2])])
def test_body_equals_fastai(cut: object) -> None:
    model = resnet18(weights=None).eval()
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(create_body(model, cut)(x), fastai_body(model, cut=-2)(x))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_in_channels_by_fastai_equals_fastai(channels: int) -> None:
    torch.manual_seed(0)
    ours, theirs = resnet18(weights=None), resnet18(weights=None)
    theirs.load_state_dict(ours.state_dict())
    set_in_channels(ours, channels)
    _update_first_layer(theirs, channels, pretrained=True)
    torch.testing.assert_close(ours.conv1.weight, theirs.conv1.weight)
    assert ours.conv1.in_channels == channels


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_in_channels_by_timm_equals_timm(channels: int) -> None:
    from timm.models import adapt_input_conv

    model = vgg11(weights=None)
    rgb = model.features[0].weight.detach().clone()
    set_in_channels(model, channels, "timm")
    torch.testing.assert_close(model.features[0].weight.detach(), adapt_input_conv(channels, rgb))


def test_mean_and_repeat_policies() -> None:
    rgb = resnet18(weights=None).conv1.weight.detach()
    for policy, fourth in (("mean", rgb.mean(dim=1)), ("repeat", rgb[:, 0])):
        model = resnet18(weights=None)
        model.conv1.weight.data = rgb.clone()
        set_in_channels(model, 4, policy)
        torch.testing.assert_close(model.conv1.weight[:, :3].detach(), rgb)
        torch.testing.assert_close(model.conv1.weight[:, 3].detach(), fourth)


def test_in_channels_keeps_the_bias() -> None:
    model = vgg11(weights=None)
    bias = model.features[0].bias.detach().clone()
    create_body(model, in_channels=4)
    torch.testing.assert_close(model.features[0].bias.detach(), bias, atol=0, rtol=0)


def test_gray_images_equal_three_equal_channels() -> None:
    torch.manual_seed(0)
    rgb = Encoder("test_efficientnet", pretrained=False).eval()
    gray = Encoder("test_efficientnet", pretrained=False, in_channels=1).eval()
    weights = rgb.state_dict()
    mean, std = weights.pop("mean"), weights.pop("std")
    x = torch.rand(1, 1, 64, 64)
    first = "backbone.body.conv_stem.weight"
    gray.load_state_dict(weights | {first: weights[first].sum(1, keepdim=True)}, strict=False)
    if len(set(mean.flatten().tolist())) == 1 and len(set(std.flatten().tolist())) == 1:
        torch.testing.assert_close(gray(x), rgb(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)
    assert gray.mean.shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["tresnet_m", "naflexvit_base_patch16_gap", "nfnet_l0", "crossvit_tiny_240"])
def test_stems_that_see_several_pixels_at_once_take_four_channels(name: str) -> None:
    with torch.device("meta"):
        encoder = Encoder(name, pretrained=False, in_channels=4)
        height, width = encoder.meta.input_size
        assert encoder(torch.zeros(1, 4, height, width)).shape[1] == encoder.num_features


def test_user_module_is_cut_at_its_last_pool() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    body = create_body(model)
    assert body(torch.rand(1, 3, 32, 32)).shape == (1, 8, 15, 15)
    encoder = Encoder(model)
    assert encoder.num_features == 8
    assert nn.Sequential(encoder, create_head(8, 2)).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 2)


class _OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(3, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(x) * self.scale)


@pytest.mark.parametrize(
    ("model", "cut", "message"),
    [
        (resnet18, "avg_pool", "to name a child of ResNet"),
        (resnet18, 0, "keep at least one"),
        (_OwnParameter, "pool", "would lose scale"),
    ],
)
def test_wrong_cuts_are_refused(model: object, cut: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_body(model(), cut)


def test_in_channels_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        set_in_channels(resnet18(weights=None), 0)
    with pytest.raises(ValueError, match="has none"):
        set_in_channels(nn.Sequential(nn.Linear(3, 3)), 4)
    with pytest.raises(ValueError, match="`policy`"):
        set_in_channels(resnet18(weights=None), 4, "sum")  # type: ignore[arg-type]


def test_models_keep_their_own_channels_unless_told_otherwise() -> None:
    import timm

    six = timm.create_model("test_resnet", pretrained=False, in_chans=6)
    assert Encoder(six).in_channels == 6
    one = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    assert Encoder(one).in_channels == 1
    assert create_body(nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1)))(torch.rand(1, 1, 8, 8)).ndim == 4
    with pytest.raises(ValueError, match="to take RGB, to adapt it to 3 channels, but it takes 1"):
        Encoder(one, in_channels=3)


def test_a_frozen_first_layer_stays_frozen() -> None:
    model = resnet18(weights=None).requires_grad_(False)
    set_in_channels(model, 4)
    assert not model.conv1.weight.requires_grad
