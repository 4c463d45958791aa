"""Whole models and tasks can be saved, pickled and copied."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.inference.tta import TestTimeAugmentation
from lightning_heads.search.embedder import Embedder
from tests.helpers import trainer_for

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FEATURES = {"feature_encoder": "test_resnet", "feature_pretrained": False, "feature_layers": (1, 2, 3)}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "Encoder": lambda: lh.Encoder("test_resnet", pretrained=False),
    "contiguous": lambda: lh.Encoder("test_resnet", pretrained=False, channels_last=False),
    "ImageModel": lambda: lh.ImageModel("test_resnet", 2, pretrained=False),
    "DenseModel": lambda: lh.DenseModel("test_resnet", 2, pretrained=False),
    "DynamicUnet": lambda: lh.DynamicUnet("test_resnet", 2, pretrained=False),
    "SiameseModel": lambda: lh.SiameseModel("test_resnet", pretrained=False),
    "ImageClassifier": lambda: lh.ImageClassifier("test_resnet", 2, pretrained=False),
    "ImageRegressor": lambda: lh.ImageRegressor("test_resnet", pretrained=False),
    "ImageSegmenter": lambda: lh.ImageSegmenter("test_resnet", 2, pretrained=False),
    "ImageRestorer": lambda: lh.ImageRestorer("test_resnet", loss="feature", pretrained=False, **FEATURES),
    "ImageEmbedder": lambda: lh.ImageEmbedder("test_resnet", 8, pretrained=False),
    "PairClassifier": lambda: lh.PairClassifier("test_resnet", pretrained=False),
    "TestTimeAugmentation": lambda: TestTimeAugmentation(lh.ImageClassifier("test_resnet", 2, pretrained=False)),
    "Embedder": lambda: Embedder(lh.ImageEmbedder("test_resnet", 8, pretrained=False)),
}


def _save_and_load(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.save": _save_and_load,
    "pickle 2": lambda module: pickle.loads(pickle.dumps(module, 2)),
    "pickle": lambda module: pickle.loads(pickle.dumps(module, pickle.HIGHEST_PROTOCOL)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("name", MODULES)
def test_copies_give_equal_outputs(name: str) -> None:
    module = MODULES[name]().eval()
    inputs = [IMAGES] * (2 if name in ("SiameseModel", "PairClassifier") else 1)
    for copied in (make(module) for make in COPIES.values()):
        torch.manual_seed(0)
        expected: Tensor = module(*inputs)
        torch.manual_seed(0)
        assert torch.equal(copied(*inputs), expected)
        assert [p.stride() for p in copied.parameters()] == [p.stride() for p in module.parameters()]


def test_a_fitted_task_can_be_saved(tmp_path: Path) -> None:
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    loader = DataLoader(TensorDataset(IMAGES, torch.tensor([0, 1])), 2)
    trainer_for(tmp_path, [lh.FineTune(1)], 2).fit(task, loader, loader)
    task.eval()
    assert torch.equal(_save_and_load(task)(IMAGES), task(IMAGES))
