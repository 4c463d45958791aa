"""Compares exported models with the models themselves, at other sizes than those of the example."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.export import Dim

EXAMPLE = (2, 96, 128)  # multiples of any encoder's stride, which an export could take for a rule
ODD_EXAMPLE = (2, 97, 131)
SIZES = [(1, 64, 64), (3, 97, 131), (2, 160, 65)]

NAMED = {0: Dim("batch", min=1, max=64), 2: Dim("height", min=64, max=512), 3: Dim("width", min=64, max=512)}
AUTO = dict.fromkeys((0, 2, 3), Dim.AUTO)


def images(batch: int, height: int, width: int, inputs: int = 1) -> tuple[Tensor, ...]:
    return tuple(torch.rand(batch, 3, height, width) for _ in range(inputs))


@contextmanager
def without_logs() -> Iterator[None]:
    """Disables logging, since pytest keeps torch's trace of each graph, which takes longer than the export."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@without_logs()
@torch.no_grad()
def check_export(
    model: nn.Module, dynamic_shapes: Any, inputs: int = 1, example: tuple[int, int, int] = ODD_EXAMPLE
) -> None:
    """Checks the exported program of a model in evaluation mode."""
    exported = torch.export.export(model, images(*example, inputs), dynamic_shapes=dynamic_shapes).module()
    for size in SIZES:
        x = images(*size, inputs)
        torch.testing.assert_close(exported(*x), model(*x), atol=1e-4, rtol=1e-4)


@without_logs()
@torch.no_grad()
def check_onnx(model: nn.Module, dynamic_shapes: Any, folder: Path, inputs: int = 1) -> None:
    """Checks the ONNX file of a model in evaluation mode, run by onnxruntime."""
    path = folder / "model.onnx"
    torch.onnx.export(model, images(*EXAMPLE, inputs), path, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    for size in SIZES:
        x = images(*size, inputs)
        (out,) = session.run(None, {name: image.numpy() for name, image in zip(names, x, strict=True)})
        np.testing.assert_allclose(out, model(*x).numpy(), atol=1e-4, rtol=1e-4)
