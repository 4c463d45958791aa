"""Two images in, one vector out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..heads.pooled import create_head, split_pooling

Comparison = Literal["concatenation", "difference", "product", "all"]


class SiameseModel(nn.Module):
    """One encoder for both images of a pair: maps two of images in 0..1, `(b, c, h, w)`, to `(b, num_outputs)`.

    The features of both are compared, channel by channel, and the head tells what that means. What it pools by at its
    beginning is applied to each image's map before, which for fastai's head gives what pooling afterwards would; of a
    head that does not pool the maps are compared, which then must be of one size.

    Source: the model of fastai's book, chapter 15, whose outputs are these by `two_pass=True`.

    Args:
        encoder: An architecture's name, or an encoder.
        head: A head of your own in place of fastai's: it takes `(b, n * encoder.num_features, h, w)`, n as below.
        num_outputs: Outputs of the head.
        comparison: What the head sees: both images' features, in order (`concatenation`, n = 2), their absolute
            `difference` or their `product` (n = 1), or `all` of these (n = 4).
        symmetric: Whether outputs are the average of those for both orders of a pair.
        two_pass: Whether the encoder sees the first images, then the second ones, instead of all in one batch. It
            differs in training alone, by the statistics of batch normalization.
        pretrained: Whether an encoder given by name gets its pretrained weights.
        weights: A local file with those weights.
        lin_ftrs: Widths of the head's hidden layers; see `create_head`.
        ps: Dropout probabilities of the head.
        concat_pool: Whether the head pools by maximum and average, or by average alone.
        in_channels: Channels of the images, where the encoder is given by name.
        image_size: Size that a backbone of fixed size is built for, likewise.
        drop_path_rate: Stochastic depth of a timm backbone, likewise.

    Raises:
        ValueError: If the comparison is unknown.

    >>> first, second = torch.rand(2, 4, 3, 64, 64)
    >>> SiameseModel("resnet18", pretrained=False)(first, second).shape
    torch.Size([4, 2])
    """

    num_inputs = 2

    def __init__(
        self,
        encoder: str | Encoder,
        head: nn.Module | None = None,
        num_outputs: int = 2,
        *,
        comparison: Comparison = "concatenation",
        symmetric: bool = False,
        two_pass: bool = False,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lin_ftrs: Sequence[int] | None = None,
        ps: float | Sequence[float] = 0.5,
        concat_pool: bool = True,
        in_channels: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if comparison not in get_args(Comparison):
            raise ValueError(f"Expected `comparison` to be {' or '.join(get_args(Comparison))}, but got {comparison!r}")
        self.encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            image_size=image_size,
            drop_path_rate=drop_path_rate,
            readout=True,
        )
        self.comparison, self.symmetric, self.two_pass = comparison, symmetric, two_pass
        if head is None:
            width = self.encoder.num_features * {"concatenation": 2, "all": 4}.get(comparison, 1)
            # smaller weights, as the book's: with those of `vision_learner` pairs were told apart less often
            head = create_head(width, num_outputs, lin_ftrs, ps, concat_pool=concat_pool, init=False)
        self.head = head

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.two_pass or first.shape != second.shape:
            return self.from_features(self.features(first), self.features(second))
        return self.from_features(*self.features(torch.cat([first, second])).chunk(2))

    def features(self, x: Tensor) -> Tensor:
        """Maps images in 0..1, `(b, c, h, w)`, to what is compared of them: pooled, or a map."""
        x = self.encoder(x)
        for layer in split_pooling(self.head)[0]:
            x = layer(x)
        return x

    def from_features(self, first: Tensor, second: Tensor) -> Tensor:
        """Maps features of both images to outputs `(b, num_outputs)`."""
        out = self._classify_pair(first, second)
        return (out + self._classify_pair(second, first)) / 2 if self.symmetric else out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the encoder's groups, then the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

    def _classify_pair(self, first: Tensor, second: Tensor) -> Tensor:
        # pooling by maximum and average puts the one behind the other, each with all channels
        shape = (-1, self.encoder.num_features)
        a, b = torch.unflatten(first, 1, shape), torch.unflatten(second, 1, shape)
        parts = [a, b] if self.comparison in ("concatenation", "all") else []
        if self.comparison in ("difference", "all"):
            parts.append((a - b).abs())
        if self.comparison in ("product", "all"):
            parts.append(a * b)
        x = torch.cat(parts, dim=2).flatten(1, 2)
        for layer in split_pooling(self.head)[1]:
            x = layer(x)
        return x
