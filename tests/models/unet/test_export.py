"""U-Nets that are exported, also to ONNX, compiled, copied, or averaged."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.models import DynamicUnet
from tests.helpers import trainer_for
from tests.models.exports import AUTO, EXAMPLE, NAMED, ODD_EXAMPLE, check_export, check_onnx

# Encoders of convolutions, some of which pool with `ceil_mode`, pad as TensorFlow, or have patches as their stem.
CONVOLUTIONAL = [
    "convnext_atto",
    "ese_vovnet19b_slim_dw",
    "hgnetv2_b0",
    "hrnet_w18_small",
    "legacy_seresnet18",
    "mobilenetv3_small_050",
    "regnetx_002",
    "resnest14d",
    "resnet18",
    "resnet18d",
    "tf_efficientnet_lite0",
    "torchvision/densenet121",
    "torchvision/squeezenet1_1",
]


def _unet(name: str, **options: Any) -> DynamicUnet:
    model = DynamicUnet(name, 2, pretrained=False, **options)
    model(torch.rand(2, 3, 64, 64))  # changes the running statistics from their initial values
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options", "example"),
    [
        ("test_resnet", {"upsample": "pixel_shuffle", "blur": True, "self_attention": True}, EXAMPLE),
        ("test_resnet", {"decoder": "fastai", "blur": True, "last_cross": "half"}, EXAMPLE),
        ("test_convnext", {"decoder": "fastai"}, ODD_EXAMPLE),
    ],
    ids=str,
)
def test_exports_with_named_sizes(name: str, options: dict[str, Any], example: tuple[int, int, int]) -> None:
    check_export(_unet(name, **options), {"x": NAMED}, example=example)


def test_exports_with_inferred_sizes() -> None:
    check_export(_unet("test_resnet", decoder="fastai"), {"x": AUTO}, example=EXAMPLE)


def test_onnx_with_named_sizes(tmp_path: Path) -> None:
    check_onnx(_unet("test_resnet"), {"x": NAMED}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_encoders_export_with_named_sizes(name: str) -> None:
    check_export(_unet(name), {"x": NAMED})


@pytest.mark.parametrize(
    "options", [pytest.param({}, marks=pytest.mark.slow), {"decoder": "fastai", "self_attention": True}], ids=str
)
def test_compiles_in_one_graph_and_trains(options: dict[str, Any]) -> None:
    model = DynamicUnet("test_resnet", 2, pretrained=False, **options)
    x = torch.rand(2, 3, 49, 70)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for network in (compiled, twin):
        network(x).square().mean().backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model).eval()(x), model.eval()(x))
    torch.compiler.reset()


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    model = DynamicUnet("test_resnet", 2, pretrained=False)
    before = copy.deepcopy(model.state_dict())
    task = lh.TransferModule(model, nn.CrossEntropyLoss(), lr=1e-2)
    data = DataLoader(TensorDataset(torch.rand(8, 3, 33, 40), torch.randint(2, (8, 33, 40))), 4)
    trainer_for(tmp_path, [lh.EMA(0.5)], 2).fit(task, data, data)
    after = task.model.state_dict()
    assert task.model.param_groups()
    assert not torch.equal(after["decoder.out.weight"], before["decoder.out.weight"])
    assert not torch.equal(
        after["pyramid.encoder.backbone.body.conv1.0.weight"], before["pyramid.encoder.backbone.body.conv1.0.weight"]
    )
    assert task.model.eval()(torch.rand(1, 3, 33, 40)).isfinite().all()
