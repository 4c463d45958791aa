import pytest
import timm
import torch
from torchvision import models

import lightning_heads as lh
from lightning_heads.encoders.torchvision_backbone import FAMILIES


def test_resnet50_shows_the_cut_split_and_stats_of_fastais_book() -> None:
    for name in ("resnet50", "torchvision/resnet50"):
        meta = lh.model_meta(name)
        assert meta.children.index(meta.cut) - len(meta.children) == -2
        assert meta.split == ("layer3",)  # fastai: body[:6] and body[6:]
        assert (meta.mean, meta.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        shown = str(meta)
        for part in ("-2", "layer3", "0.485", "0.225"):
            assert part in shown


@pytest.mark.parametrize(
    ("name", "cut", "split"),
    [
        ("squeezenet1_0", -1, "features.5"),
        ("densenet121", -1, "features.transition2"),
        ("vgg16_bn", -2, "features.22"),
        ("alexnet", -2, "features.6"),
    ],
)
def test_cuts_and_splits_equal_fastais_table(name: str, cut: int, split: str) -> None:
    meta = lh.model_meta(f"torchvision/{name}")
    assert meta.children.index(meta.cut) - len(meta.children) == cut
    assert meta.split == (split,)


def test_layers_inside_the_head_are_reported_and_kept() -> None:
    meta = lh.model_meta("mobilenetv3_small_050")
    assert meta.readout == ("conv_head",)
    assert meta.readout_features == 1024
    assert lh.model_meta("torchvision/mobilenet_v3_small").readout == ("classifier.0",)
    assert lh.model_meta("vit_tiny_patch16_224").readout == ("class token",)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_050",
        "ghostnet_050",
        "fasternet_t0",
        "hardcorenas_b",
        "test_vit",
        "test_convnext",
        "coat_tiny",
    ],
)
def test_the_classifiers_input_can_be_pooled_from_the_encoder(name: str) -> None:
    model = timm.create_model(name, pretrained=False).eval()
    size = model.pretrained_cfg["input_size"][1]
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        encoder = lh.Encoder(model, normalize=False).eval()
        pooled = encoder(x).mean((2, 3))[:, -encoder.meta.readout_features :]
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)


def test_without_readout_nothing_of_the_head_is_left() -> None:
    with_readout = lh.Encoder("mobilenetv3_small_050", pretrained=False)
    without = lh.Encoder("mobilenetv3_small_050", pretrained=False, readout=False)
    assert without.num_features == 288
    assert not any("conv_head" in name for name, _ in without.named_parameters())
    assert with_readout.num_features == 288 + 1024


def test_every_torchvision_family_has_a_row() -> None:
    modules = {
        models.get_model_builder(name).__module__.rpartition(".")[2] for name in models.list_models(module=models)
    }
    assert modules - {"vision_transformer"} == set(FAMILIES)


def test_unknown_architecture_suggests_similar_names() -> None:
    with pytest.raises(ValueError, match=r"'resnet5O'; did you mean .*resnet50"):
        lh.model_meta("resnet5O")


def test_architecture_without_a_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="does not support classification"), torch.device("meta"):
        lh.Encoder("qwen3_vit_88m_enc", pretrained=False)


def test_reading_metadata_leaves_the_model_unchanged() -> None:
    model = timm.create_model("test_resnet", pretrained=False)
    names = [name for name, _ in model.named_parameters()]
    assert lh.model_meta(model) == lh.model_meta("test_resnet")
    assert [name for name, _ in model.named_parameters()] == names
