import torch

from lightning_heads import AdaptiveConcatPool2d


def test_concatenates_the_maximum_then_the_average() -> None:
    x = torch.randn(2, 3, 5, 7)
    out = AdaptiveConcatPool2d()(x).flatten(1)
    torch.testing.assert_close(out, torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1))
