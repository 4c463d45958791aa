"""U-Nets that are exported, also to ONNX, compiled, copied, or averaged."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx.experimental import _config as fx_config
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.models import DynamicUnet
from tests.helpers import trainer_for

SIZES = [(64, 96), (97, 131)]
DYNAMIC = {"x": {2: Dim("height", min=33, max=512), 3: Dim("width", min=33, max=512)}}


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables torch's trace of each graph, since pytest keeps its records, which takes longer than the export."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def _unet(name: str, **options: Any) -> DynamicUnet:
    model = DynamicUnet(name, 2, pretrained=False, **options)
    model(torch.rand(2, 3, 64, 64))  # changes the running statistics from their initial values
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("test_resnet", {"decoder": "fastai", "blur": True}),
        ("test_resnet", {"last_cross": "full", "upsample": "pixel_shuffle"}),
        ("efficientnet_lite0", {}),
        ("test_convnext", {}),
    ],
    ids=str,
)
def test_exports_with_dynamic_height_and_width(name: str, options: dict[str, Any]) -> None:
    model = _unet(name, **options)
    # does not specialize on properties of the traced size, as torch's exporter to ONNX does not
    with fx_config.patch(backed_size_oblivious=True):
        program = torch.export.export(
            model,
            (torch.rand(1, 3, 70, 83),),
            dynamic_shapes=DYNAMIC,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for size in SIZES:
        x = torch.rand(1, 3, *size)
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_onnx_with_dynamic_height_and_width(name: str, tmp_path: Path) -> None:
    model = _unet(name)
    path = tmp_path / "unet.onnx"
    x = torch.rand(1, 3, 70, 83)
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=DYNAMIC, input_names=["x"], verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in SIZES:
        x = torch.rand(1, 3, *size)
        (out,) = session.run(None, {"x": x.numpy()})
        assert out.shape == (1, 2, *size)
        np.testing.assert_allclose(out, model(x).numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("options", [{}, {"decoder": "fastai"}, {"self_attention": True}], ids=str)
def test_compiles_in_one_graph_and_trains(options: dict[str, Any], backend: str) -> None:
    torch.manual_seed(0)
    model = DynamicUnet("test_resnet", 2, pretrained=False, **options)
    x = torch.rand(2, 3, 49, 70)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
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
