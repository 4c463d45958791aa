"""Tests that `load_fastai_unet` refuses weights of another U-Net; parity with fastai is tested with the U-Net."""

from pathlib import Path

import pytest
import torch

from lightning_heads.interop import load_fastai_unet
from tests.models.unet.test_fastai import fastai_unet, our_unet


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unet.pth"
    torch.save(fastai_unet(4, {}).state_dict(), path)
    with pytest.raises(ValueError, match=rf"{path} to hold the \d+ tensors of this U-Net.*instead of .*\(5, "):
        load_fastai_unet(our_unet(5, {}), path)
    with pytest.raises(ValueError, match="but it holds"):
        load_fastai_unet(our_unet(4, {"self_attention": True}), path)
    with pytest.raises(FileNotFoundError, match=r"there is none at .*nowhere\.pth"):
        load_fastai_unet(our_unet(4, {}), tmp_path / "nowhere.pth")


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    torch.save(fastai_unet(4, {}).state_dict(), tmp_path / "unet.pth")
    ours = our_unet(5, {})
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ValueError, match="tensors of this U-Net"):
        load_fastai_unet(ours, tmp_path / "unet.pth")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name]), name
