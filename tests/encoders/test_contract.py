"""Contract of every encoder, tested on small architectures of many families."""

import copy
import io
import pickle
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
import timm
import torch
from timm.models.byobnet import ByoBlockCfg
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from lightning_heads import Encoder, ImageModel, param_groups

# A small architecture of each family, with an image size that it accepts.
TIMM = {
    "halonet_h1": 256,
    "test_byobnet": 64,
    "cait_xxs24_224": 224,
    "coat_tiny": 224,
    "convit_tiny": 224,
    "test_convnext": 64,
    "cpubone_nano": 64,
    "crossvit_tiny_240": 240,
    "csatv2": 128,
    "cs3darknet_focus_s": 64,
    "cspnext_tiny": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "densenet121": 64,
    "dla46x_c": 64,
    "dpn48b": 64,
    "edgenext_xx_small": 64,
    "efficientformerv2_s0": 224,
    "test_efficientnet": 64,
    "efficientvim_m1": 64,
    "efficientvit_b0": 64,
    "efficientvit_m0": 224,
    "vit_tiny_patch16_dinov3_qkvb": 64,
    "fasternet_t0": 64,
    "fastvit_t8": 64,
    "gcvit_xxtiny": 224,
    "ghostnet_050": 64,
    "hardcorenas_b": 64,
    "hgnetv2_b0": 64,
    "hrnet_w18_small": 64,
    "iformer_t": 64,
    "inception_next_atto": 64,
    "lcnetv2_small": 64,
    "levit_128s": 224,
    "lowformer_b0": 64,
    "test_mambaout": 64,
    "test_coatnet": 160,
    "poolformerv2_s12": 64,
    "gmlp_ti16_224": 224,
    "mobilenetv3_small_050": 64,
    "mobilevit_xxs": 64,
    "test_nfnet": 64,
    "pit_ti_224": 224,
    "pvt_v2_b0": 64,
    "regnetx_002": 64,
    "repghostnet_050": 64,
    "repvit_m1": 64,
    "resnest14d": 64,
    "test_resnet": 64,
    "resnetv2_18": 64,
    "rexnet_100": 64,
    "legacy_seresnet18": 64,
    "shvit_s1": 128,
    "skresnet18": 64,
    "starnet_s050": 64,
    "swiftformer_xs": 224,
    "tiny_vit_5m_224": 224,
    "visformer_tiny": 224,
    "test_vit": 64,
    "vit_tiny_r_s16_p8_224": 224,
    "test_vit_relpos": 160,
    "ese_vovnet19b_slim_dw": 64,
    "xcit_nano_12_p8_224": 64,
}

TORCHVISION = {
    "torchvision/alexnet": 64,
    "torchvision/convnext_tiny": 64,
    "torchvision/densenet121": 64,
    "torchvision/efficientnet_b0": 64,
    "torchvision/efficientnet_v2_s": 64,
    "torchvision/googlenet": 64,
    "torchvision/inception_v3": 96,
    "torchvision/maxvit_t": 224,
    "torchvision/mnasnet0_5": 64,
    "torchvision/mobilenet_v2": 64,
    "torchvision/mobilenet_v3_small": 64,
    "torchvision/regnet_x_400mf": 64,
    "torchvision/regnet_y_400mf": 64,
    "torchvision/resnet18": 64,
    "torchvision/shufflenet_v2_x0_5": 64,
    "torchvision/squeezenet1_1": 64,
    "torchvision/swin_t": 64,
    "torchvision/swin_v2_t": 64,
    "torchvision/vgg11": 64,
    "torchvision/vit_b_16": 224,
}

ALL = TIMM | TORCHVISION

# Those that `make test` runs: every line and branch of `lightning_heads/encoders` that one of `ALL` runs in building,
# in forward passes or in splitting parameters is also run by one of these, and they have every combination of library,
# layout and kind of readout, of pyramid and of size, fixed or free, that occurs in `ALL`. Each row of torchvision's
# families is here as well, and what is cheap. Others differ in their library's code alone; `make test-slow` runs them.
FAST = {
    "test_byobnet",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "test_convnext",
    "cpubone_nano",
    "crossvit_tiny_240",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "csatv2",
    "densenet121",
    "dla46x_c",
    "test_efficientnet",
    "efficientvim_m1",
    "ese_vovnet19b_slim_dw",
    "fastvit_t8",
    "halonet_h1",
    "levit_128s",
    "test_coatnet",
    "test_mambaout",
    "pit_ti_224",
    "regnetx_002",
    "test_resnet",
    "resnetv2_18",
    "shvit_s1",
    "starnet_s050",
    "visformer_tiny",
    "vit_tiny_patch16_dinov3_qkvb",
    "test_vit",
    "test_vit_relpos",
    "xcit_nano_12_p8_224",
} | TORCHVISION.keys() - {"torchvision/efficientnet_v2_s", "torchvision/regnet_y_400mf", "torchvision/swin_v2_t"}

# Those that `make test` exports: layouts of both libraries, with and without a class token or several branches.
EXPORTED = {
    "crossvit_tiny_240",
    "test_convnext",
    "test_mambaout",
    "test_resnet",
    "test_vit",
    "torchvision/alexnet",
    "torchvision/swin_t",
}

# Fewer blocks of each kind, or narrower ones, for architectures that are slow to build and export.
SHALLOW: dict[str, dict[str, Any]] = {
    "cait_xxs24_224": {"depth": 2},
    "coat_tiny": {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1},
    "convit_tiny": {"depth": 3, "local_up_to_layer": 2},
    "crossvit_tiny_240": {"depth": ((1, 1, 0), (1, 1, 0), (1, 1, 0))},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "halonet_h1": {
        "width_factor": 0.25,
        "blocks": tuple(ByoBlockCfg(type="self_attn", d=1, c=64, s=s, gs=0, br=1.0) for s in (1, 2, 2, 2)),
    },
    "rexnet_100": {"depth_mult": 0.5},
    "tiny_vit_5m_224": {"depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_dinov3_qkvb": {"depth": 3},
    "xcit_nano_12_p8_224": {"depth": 2},
}


def _vgg() -> nn.Module:
    features = models.vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 16, 16, "M"])
    with torch.device("meta"):  # for a classifier of 120 million parameters, which is replaced
        model = models.VGG(features, init_weights=False)
    hidden = [nn.Linear(16 * 7 * 7, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout()]
    model.classifier = nn.Sequential(*hidden, nn.Linear(32, 1000))
    return model


SMALL: dict[str, Callable[[], nn.Module]] = {
    "torchvision/convnext_tiny": lambda: models.ConvNeXt(
        [CNBlockConfig(width, width * 2, 1) for width in (16, 32, 64)] + [CNBlockConfig(128, None, 1)]
    ),
    "torchvision/densenet121": lambda: models.DenseNet(8, (2, 2, 2, 2), 16),
    "torchvision/maxvit_t": lambda: models.MaxVit((224, 224), 8, 7, [8, 16, 32, 64], [1, 1, 1, 1], 8, 0.0),
    "torchvision/swin_t": lambda: models.SwinTransformer([4, 4], 24, [1, 1, 1, 1], [1, 2, 4, 8], [7, 7]),
    "torchvision/vgg11": _vgg,
    "torchvision/vit_b_16": lambda: models.VisionTransformer(224, 16, 4, 2, 32, 64),
}


def by_speed(names: Iterable[str], fast: Collection[str]) -> list[Any]:
    """Returns parameters of a test, of which `make test` runs only those that are fast."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def architecture(name: str) -> str | nn.Module:
    """Returns the name, or a small model of that architecture."""
    if name in SMALL:
        return SMALL[name]()
    model: nn.Module | None = timm.create_model(name, **SHALLOW[name]) if name in SHALLOW else None
    return model or name


def _encoder(name: str, num_groups: int | None = None) -> Encoder:
    return Encoder(architecture(name), pretrained=False, num_groups=num_groups)


@pytest.mark.filterwarnings("ignore:.*attention_bias_cache:UserWarning")  # timm keeps it in a plain dict
@pytest.mark.parametrize("name", by_speed(ALL, FAST))
def test_image_model_contract(name: str) -> None:
    size = ALL[name]
    torch.manual_seed(0)
    model = ImageModel(_encoder(name), 3, lin_ftrs=[8], ps=0.0)
    encoder = model.encoder
    x = torch.rand(2, encoder.in_channels, size, size)

    # shapes: one map, and a pyramid from fine to coarse with the channels that the encoder reports
    model.eval()
    with torch.no_grad():
        features = encoder(x)
        maps = encoder.pyramid(x)
        last, grids = encoder.backbone.with_pyramid(encoder.normalized(x))
        out = model(x)
    assert features.shape[:2] == (2, encoder.num_features)
    assert out.shape == (2, 3)
    assert tuple(m.shape[1] for m in maps) == encoder.channels
    assert len(encoder.channels) == len(encoder.reductions) == len(maps)
    heights = [m.shape[-2] for m in maps]
    distinct = sorted(set(heights), reverse=True)
    assert heights == (distinct if len(distinct) > 1 else distinct * len(heights))
    assert features.isfinite().all()

    # `with_pyramid` returns the same in one pass, except that maps of tokens are normalized
    torch.testing.assert_close(last, features, atol=1e-4, rtol=1e-4)
    assert [m.shape for m in grids] == [m.shape for m in maps]
    if encoder.meta.layout != "tokens":
        torch.testing.assert_close(grids, maps, atol=1e-4, rtol=1e-4)

    # groups: two of the encoder, then the head; the first layer is in the first group
    groups = param_groups(model)
    assert len(groups) == 3
    assert all(groups)
    assert next(p for p in encoder.parameters() if p.ndim == 4).data_ptr() in {p.data_ptr() for p in groups[0]}

    # a copy is equal, and so is a model that is built anew, with other groups, and loads the weights
    torch.testing.assert_close(copy.deepcopy(model)(x), out)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    torch.manual_seed(1)
    other = ImageModel(_encoder(name, num_groups=3), 3, lin_ftrs=[8], ps=0.0).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(other(x), out)
    assert [len(group) > 0 for group in param_groups(other)] == [True] * 4

    # every parameter gets a gradient
    model.train()
    model(x).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []

    # the whole model can be pickled, also by the protocol of `torch.save`; without data, as that takes long
    names = [n for n, _ in model.named_parameters()]
    assert [n for n, _ in pickle.loads(pickle.dumps(model.to("meta"), 2)).named_parameters()] == names


@pytest.mark.filterwarnings("ignore:.*attention_bias_cache:UserWarning")
@pytest.mark.parametrize("name", by_speed(ALL, EXPORTED))
def test_image_models_export(name: str) -> None:
    model = ImageModel(_encoder(name), 3, lin_ftrs=[8], ps=0.0).eval()
    x = torch.rand(2, model.encoder.in_channels, ALL[name], ALL[name])
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*attention_bias_cache:UserWarning")
@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_vit", "levit_128s", "torchvision/swin_t", "torchvision/vit_b_16"]
)
def test_hypercolumns_keep_the_contract(name: str) -> None:
    size = ALL[name]
    encoder = Encoder(architecture(name), pretrained=False, hypercolumns=True)
    model = ImageModel(encoder, 3, lin_ftrs=[8], ps=0.0).eval()
    x = torch.rand(2, 3, size, size)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        out = model(x)
        assert out.shape == (2, 3)
        torch.testing.assert_close(model.from_features(model.features(x)), out)
        torch.testing.assert_close(program.module()(x), out, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(copy.deepcopy(model)(x), out)
    model.train()
    model(x).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_many_families_are_covered() -> None:
    assert len(TIMM) >= 60
    assert ALL.keys() >= FAST | EXPORTED
