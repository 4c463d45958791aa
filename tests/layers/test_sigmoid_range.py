import pytest
import torch

from lightning_heads.layers import SigmoidRange


def test_stays_in_the_range_and_maps_zero_to_its_middle() -> None:
    out = SigmoidRange(-1.0, 3.0)(torch.tensor([-9.0, 0.0, 9.0]))
    assert out[1].item() == 1.0
    assert -1 < out[0].item() < -0.99
    assert 2.99 < out[2].item() < 3


def test_refuses_an_empty_range() -> None:
    with pytest.raises(ValueError, match="from low to high"):
        SigmoidRange(1.0, 1.0)
