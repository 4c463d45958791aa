"""Contract of every encoder, tested on small architectures of many families."""

import copy
import io
import pickle
from typing import Any

import pytest
import timm
import torch

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

# Fewer blocks of each kind, for architectures that are slow to build and export.
SHALLOW: dict[str, dict[str, Any]] = {
    "cait_xxs24_224": {"depth": 2},
    "coat_tiny": {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1},
    "convit_tiny": {"depth": 3, "local_up_to_layer": 2},
    "crossvit_tiny_240": {"depth": ((1, 1, 0), (1, 1, 0), (1, 1, 0))},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "rexnet_100": {"depth_mult": 0.5},
    "tiny_vit_5m_224": {"depths": (1, 1, 1, 1)},
    "vit_tiny_patch16_dinov3_qkvb": {"depth": 3},
    "xcit_nano_12_p8_224": {"depth": 2},
}


def _encoder(name: str, num_groups: int | None = None) -> Encoder:
    module = timm.create_model(name, **SHALLOW[name]) if name in SHALLOW else name
    return Encoder(module, pretrained=False, num_groups=num_groups)


@pytest.mark.filterwarnings("ignore:.*attention_bias_cache:UserWarning")  # timm keeps it in a plain dict
@pytest.mark.parametrize("name", ALL)
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

    # it exports
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), out, atol=1e-4, rtol=1e-4)

    # every parameter gets a gradient
    model.train()
    model(x).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []

    # the whole model can be pickled, also by the protocol of `torch.save`; without data, as that takes long
    names = [n for n, _ in model.named_parameters()]
    assert [n for n, _ in pickle.loads(pickle.dumps(model.to("meta"), 2)).named_parameters()] == names


@pytest.mark.filterwarnings("ignore:.*attention_bias_cache:UserWarning")
@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_vit", "levit_128s", "torchvision/swin_t", "torchvision/vit_b_16"]
)
def test_hypercolumns_keep_the_contract(name: str) -> None:
    size = ALL[name]
    model = ImageModel(name, 3, pretrained=False, lin_ftrs=[8], ps=0.0, hypercolumns=True).eval()
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
