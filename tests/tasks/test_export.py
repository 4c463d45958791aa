"""Tasks that are exported, by the names of their inputs."""

from pathlib import Path

import pytest

import lightning_heads as lh
from tests.models.exports import NAMED, check_export, check_onnx


@pytest.mark.slow
def test_a_task_exports_to_onnx_with_named_sizes(tmp_path: Path) -> None:
    check_onnx(lh.ImageClassifier("test_resnet", num_classes=3, pretrained=False).eval(), {"x": NAMED}, tmp_path)


def test_a_task_of_pairs_exports_with_named_sizes() -> None:
    task = lh.PairClassifier("test_resnet", pretrained=False).eval()
    check_export(task, {"x": NAMED, "others": (NAMED,)}, inputs=2)
