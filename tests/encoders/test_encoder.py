import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models import densenet121, vit_b_32

import lightning_heads as lh
from lightning_heads.encoders.unused_parameters import recorded_calls


def test_normalizes_by_the_weights_own_statistics() -> None:
    model = timm.create_model("test_vit", pretrained=False).eval()
    cfg = model.pretrained_cfg
    x = torch.rand(1, 3, 160, 160)
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model.forward_features((x - mean) / std)[:, 1:].mean(1)
        got = lh.Encoder(model).eval()(x).mean((2, 3))[:, : expected.shape[1]]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_map_equals_torchvisions_features() -> None:
    model = densenet121(weights=None).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = torch.relu(model.features(x))  # the ReLU that a cut by children loses
        torch.testing.assert_close(lh.Encoder(model, normalize=False).eval()(x), expected, atol=1e-5, rtol=1e-5)


def test_swin_map_is_channels_first_and_square_grid_is_in_order() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.forward_features(x).permute(0, 3, 1, 2)
        torch.testing.assert_close(lh.Encoder(model, normalize=False).eval()(x), expected, atol=1e-5, rtol=1e-5)


def test_hypercolumns_are_the_maps_of_all_scales_at_the_size_of_the_last() -> None:
    model = timm.create_model("test_efficientnet", pretrained=False).eval()
    stages = timm.create_model("test_efficientnet", pretrained=False, features_only=True).eval()
    stages.load_state_dict(model.state_dict(), strict=False)
    encoder = lh.Encoder(copy.deepcopy(model), normalize=False, hypercolumns=True).eval()
    x = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        maps = zip(stages(x), (16, 8, 4, 2, 1), strict=True)
        expected = [m.unfold(2, n, n).unfold(3, n, n).mean((4, 5)) for m, n in maps]
        torch.testing.assert_close(encoder(x), torch.cat([*expected, model.forward_features(x)], 1), atol=1e-5, rtol=0)
    assert encoder.num_features == encoder(x).shape[1] == 16 + 24 + 32 + 48 + 64 + 256


def test_hypercolumns_have_the_last_map_once() -> None:
    encoder = lh.Encoder("torchvision/resnet18", pretrained=False, hypercolumns=True).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        *_, last = encoder.pyramid(x)
        torch.testing.assert_close(encoder(x)[:, -512:], last)
    assert encoder.num_features == 64 + 64 + 128 + 256 + 512


def test_hypercolumns_of_a_vit_are_normalized_as_its_last_grid() -> None:
    model = timm.create_model("test_vit", pretrained=False).eval()
    encoder = lh.Encoder(copy.deepcopy(model), normalize=False, hypercolumns=True).eval()
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = model.get_intermediate_layers(x, n=encoder.meta.pyramid, reshape=True, norm=True)
        torch.testing.assert_close(encoder(x)[:, : 4 * 64], torch.cat(expected, dim=1), atol=1e-5, rtol=1e-5)


def test_hypercolumns_of_a_single_map_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ValueError, match="at least two scales or depths for `hypercolumns`, but it gives 1"):
        lh.Encoder(model, image_size=32, hypercolumns=True)


def test_vit_takes_other_sizes_and_shapes() -> None:
    encoder = lh.Encoder("test_vit", pretrained=False).eval()
    assert encoder(torch.rand(1, 3, 96, 160)).shape[-2:] == (6, 10)
    assert encoder.pyramid(torch.rand(1, 3, 96, 160))[-1].shape[-2:] == (6, 10)


@pytest.mark.parametrize("hypercolumns", [False, True])
def test_a_size_that_patches_do_not_divide_is_refused_in_a_sentence(hypercolumns: bool) -> None:
    encoder = lh.Encoder("test_vit", pretrained=False, hypercolumns=hypercolumns)
    message = "height and width are multiples of 16, as test_vit takes no others, but got 97x131; resize, pad or crop"
    for call in (encoder, encoder.pyramid):
        with pytest.raises(ValueError, match=message):
            call(torch.rand(1, 3, 97, 131))
    assert "multiples of 16" in str(encoder.meta)


def test_convolutions_and_padding_take_any_size() -> None:
    assert lh.Encoder("test_resnet", pretrained=False).meta.multiple == 1
    assert lh.DynamicUnet("test_vit", 2, pretrained=False)(torch.rand(1, 3, 41, 50)).shape == (1, 2, 41, 50)


def test_images_of_other_channels_name_the_arguments() -> None:
    model = lh.ImageModel("test_resnet", 2, pretrained=False)
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\), but got \(2, 1, 32, 32\); the model's `in_channels`"):
        model(torch.rand(2, 1, 32, 32))


def test_fixed_size_is_reported_and_can_be_chosen() -> None:
    mixer = lh.Encoder("gmlp_ti16_224", pretrained=False, image_size=96)
    assert mixer(torch.rand(1, 3, 96, 96)).shape[-2:] == (6, 6)
    with pytest.raises(ValueError, match="96x96, the one size that gmlp_ti16_224 was built for, but got 224x224"):
        mixer(torch.rand(1, 3, 224, 224))


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "torchvision/resnet18", "torchvision/vit_b_32"])
@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_groups_are_contiguous_and_complete(name: str, num_groups: int) -> None:
    encoder = lh.Encoder(name, pretrained=False, num_groups=num_groups)
    groups = encoder.param_groups()
    assert len(groups) == num_groups
    assert sum(len(g) for g in groups) == len([*encoder.parameters()])


def test_groups_of_resnet_are_fastais() -> None:
    encoder = lh.Encoder("torchvision/resnet18", pretrained=False)
    body = encoder.backbone.body
    first = [p for child in [*body.children()][:6] for p in child.parameters()]
    assert [id(p) for p in encoder.param_groups()[0]] == [id(p) for p in first]


def test_impossible_group_count_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_groups` between 1 and 5"):
        lh.Encoder("resnet18", pretrained=False, num_groups=6)


@pytest.mark.parametrize("name", ["test_vit", "resnet18", "torchvision/resnet18"])
@pytest.mark.parametrize("hypercolumns", [False, True])
def test_gradient_checkpointing_gives_equal_gradients(name: str, hypercolumns: bool) -> None:
    encoder = lh.Encoder(name, pretrained=False, hypercolumns=hypercolumns).train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    x = torch.rand(2, 3, 64, 64)

    def gradients() -> list[torch.Tensor]:
        encoder.zero_grad()
        encoder(x).square().mean().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    with recorded_calls(encoder) as once:
        plain = gradients()
    encoder.set_grad_checkpointing()
    with recorded_calls(encoder) as again:
        torch.testing.assert_close(gradients(), plain, atol=1e-5, rtol=1e-4)
    assert len(again) > 1.5 * len(once)


def test_gradient_checkpointing_is_refused_where_unsupported() -> None:
    with pytest.raises(ValueError, match="to support gradient checkpointing"):
        lh.Encoder("torchvision/vit_b_32", pretrained=False).set_grad_checkpointing()


def test_statistics_and_channels_are_checked() -> None:
    with pytest.raises(ValueError, match="`mean` to have 4 values"):
        lh.Encoder("test_resnet", pretrained=False, in_channels=4, mean=(0.5, 0.5))
    encoder = lh.Encoder("test_resnet", pretrained=False, in_channels=4, mean=(0.1, 0.2, 0.3, 0.4), std=(1, 1, 1, 2))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"images \(b, 4, h, w\), but got \(1, 3, 64, 64\)"):
        encoder(torch.rand(1, 3, 64, 64))


def test_googlenet_is_centered_as_its_weights_expect() -> None:
    encoder = lh.Encoder("torchvision/googlenet", pretrained=False)
    assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert not any("aux" in name for name, _ in encoder.named_parameters())


def test_a_given_model_keeps_its_modes_and_frozen_parameters() -> None:
    model = timm.create_model("test_resnet", pretrained=False)
    model.layer1.eval()
    model.conv1.requires_grad_(False)
    encoder = lh.Encoder(model)
    body = encoder.backbone.body
    assert (body.training, body.layer1.training, body.layer2.training) == (True, False, True)
    assert not any(p.requires_grad for p in body.conv1.parameters())
    assert len(encoder.param_groups()) == 2


@pytest.mark.parametrize(
    ("name", "dropped"),
    [("test_vit", "body.norm.weight"), ("torchvision/vit_b_32", "body.encoder.ln.weight"), ("vgg11", "pre_logits")],
)
def test_keep_pyramid_drops_parameters_that_the_pyramid_does_not_depend_on(name: str, dropped: str) -> None:
    with torch.device("cpu" if "/" in name else "meta"):
        encoder = lh.Encoder(name, pretrained=False).eval()
        assert any(dropped in key for key, _ in encoder.named_parameters())
        x = torch.rand(1, encoder.in_channels, *encoder.meta.input_size)
        before = encoder.pyramid(x)
        encoder.keep_pyramid()
        assert not any(dropped in key for key in encoder.state_dict())
        after = encoder.pyramid(x)
    for ours, earlier in zip(after, before, strict=True):
        assert ours.shape == earlier.shape
        if "/" in name:
            torch.testing.assert_close(ours, earlier)
    assert {id(p) for group in encoder.param_groups() for p in group} == {id(p) for p in encoder.parameters()}
    with pytest.raises(RuntimeError, match="`keep_pyramid` has dropped those that `pyramid` does not depend on"):
        encoder(x)


def test_layers_that_run_without_affecting_the_pyramid_keep_running_untrained() -> None:
    encoder = lh.Encoder("ghostnet_050", pretrained=False, readout=False).eval()
    x = torch.rand(1, 3, 64, 64)
    before = encoder.pyramid(x)
    names = {name for name, _ in encoder.named_parameters()}
    encoder.keep_pyramid()
    gone = names - {name for name, _ in encoder.named_parameters()}
    assert gone
    assert not gone & set(encoder.state_dict())
    for ours, earlier in zip(encoder.pyramid(x), before, strict=True):
        torch.testing.assert_close(ours, earlier)


def test_pyramid_of_a_vit_is_timms_intermediate_maps() -> None:
    model = timm.create_model("test_vit", pretrained=False, dynamic_img_size=True).eval()
    x = torch.rand(1, 3, 96, 160)
    with torch.no_grad():
        expected = model.forward_intermediates(x, intermediates_only=True)
        encoder = lh.Encoder(model, normalize=False, readout=False).eval()
        maps = encoder.pyramid(x)
    levels = encoder.meta.pyramid
    assert levels[-1] == len(model.blocks) - 1
    assert [*levels] == sorted(set(levels))
    for ours, level in zip(maps, levels, strict=True):
        torch.testing.assert_close(ours, expected[level])


def test_pyramid_of_torchvisions_vit_is_its_layers_outputs() -> None:
    model = vit_b_32(weights=None).eval()
    outputs = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda _module, _args, out: outputs.append(out))
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        model(x)
        expected = [outputs[i][:, 1:].transpose(1, 2).reshape(1, 768, 7, 7) for i in (2, 5, 8, 11)]
        maps = lh.Encoder(model, normalize=False, readout=False).eval().pyramid(x)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pyramid_is_from_fine_to_coarse_in_the_models_own_maps() -> None:
    model = timm.create_model("test_convnext", pretrained=False).eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.forward_intermediates(x, intermediates_only=True)
        maps = lh.Encoder(model, normalize=False, readout=False).eval().pyramid(x)
    for ours, theirs in zip(maps, expected[-len(maps) :], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["fastvit_t8", "mobileone_s0", "repvgg_a0", "gernet_s"])
def test_strided_1x1_convolutions_of_few_channels_get_contiguous_inputs(name: str) -> None:
    encoder = lh.Encoder(name, pretrained=False)
    seen = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.in_channels < 16:
            module.register_forward_pre_hook(lambda module, args: seen.append(args[0].is_contiguous()))
    encoder(torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last))
    assert seen
    assert all(seen)
    assert not lh.Encoder("resnet18", pretrained=False)(torch.rand(2, 3, 64, 96)).is_contiguous()
