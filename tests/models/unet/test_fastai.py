"""Parity with fastai's `DynamicUnet`, with one set of weights in both."""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from lightning_heads import Encoder
from lightning_heads.interop import load_fastai_unet
from lightning_heads.models import DynamicUnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.layers import NormType
    from fastai.vision.learner import create_body
    from fastai.vision.models.unet import DynamicUnet as FastaiUnet

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

OPTIONS: list[dict[str, Any]] = [
    {"blur": True},
    {"blur": True, "blur_final": False, "self_attention": True},
    {"last_cross": "none"},
    {"y_range": (-1.0, 3.0)},
    {"norm": "batch"},
    {"act": "silu"},
]


def _body() -> nn.Sequential:
    """Builds a small backbone with maps at 1/2 to 1/32 of the image size."""
    widths = [3, 8, 8, 16, 24, 32]
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(ni, nf, 3, 2, padding=1, bias=False), nn.BatchNorm2d(nf), nn.ReLU(inplace=True))
            for ni, nf in pairwise(widths)
        )
    )


def _resnet34() -> nn.Sequential:
    body: nn.Sequential = create_body(torchvision.models.resnet34(), cut=-2)
    return body


def fastai_unet(outputs: int, options: dict[str, Any], body: nn.Sequential | None = None) -> nn.Module:
    """Builds fastai's U-Net with random running statistics and scales, as initial ones would hide errors."""
    theirs: dict[str, Any] = {**options}
    if "last_cross" in options:
        theirs["last_cross"] = options["last_cross"] != "none"
    if "norm" in options:
        theirs["norm_type"] = {"batch": NormType.Batch}[theirs.pop("norm")]
    if "act" in options:
        theirs["act_cls"] = {"silu": nn.SiLU}[theirs.pop("act")]
    model: nn.Module = FastaiUnet(body or _body(), outputs, (128, 128), **theirs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.2)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
    return model.eval()


def our_unet(
    outputs: int, options: dict[str, Any], backbone: str | nn.Module | None = None, *, normalize: bool = False
) -> DynamicUnet:
    encoder = Encoder(backbone or _body(), pretrained=False, normalize=normalize)
    return DynamicUnet(encoder, outputs, decoder="fastai", **options).eval()


@torch.no_grad()
def _assert_equal(ours: nn.Module, theirs: nn.Module, *sizes: tuple[int, int]) -> None:
    # in double precision, since random weights give large values, whose rounding errors a softmax amplifies
    ours, theirs = ours.double(), theirs.double()
    for height, width in sizes:
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        expected = theirs(x)
        assert expected.shape[-2:] == (height, width)
        assert expected.std() > 1e-3
        # fastai's output is in single precision in any case
        torch.testing.assert_close(ours(x).float(), expected, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_fastai_with_its_weights(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = fastai_unet(4, options)
    torch.save(theirs.state_dict(), tmp_path / "unet.pth")
    ours = our_unet(4, options)
    load_fastai_unet(ours, tmp_path / "unet.pth")
    _assert_equal(ours, theirs, (64, 96), (65, 47))


def test_equals_fastai_on_resnet34_from_a_learners_checkpoint(tmp_path: Path) -> None:
    theirs = fastai_unet(21, {}, _resnet34())
    torch.save({"model": theirs.state_dict(), "opt": {"hypers": []}}, tmp_path / "unet.pth")
    ours = our_unet(21, {}, "torchvision/resnet34")
    load_fastai_unet(ours, tmp_path / "unet.pth")
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters())
    assert round(count / 1e6, 1) == 41.2
    _assert_equal(ours, theirs, (64, 96), (97, 131))


@torch.no_grad()
def test_normalizes_images_as_fastais_loaders_do(tmp_path: Path) -> None:
    theirs = fastai_unet(3, {})
    torch.save(theirs.state_dict(), tmp_path / "unet.pth")
    ours = our_unet(3, {}, normalize=True)
    load_fastai_unet(ours, tmp_path / "unet.pth")
    images = torch.rand(2, 3, 70, 50)
    torch.testing.assert_close(ours(images), theirs((images - MEAN) / STD), atol=1e-4, rtol=1e-4)
