"""Siamese model that maps a pair of images to a vector."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders import Encoder, as_encoder
from ..encoders.encoder import BackboneArgs
from ..heads.pooled import apply_after_pooling, apply_pooling, create_head
from ..utils.arguments import Unpack, forwards
from ..utils.tensors import at_least_float32

Comparison = Literal["concatenation", "difference", "product", "all", "cosine"]

_MAX_LOG_SCALE = math.log(100)  # as in CLIP (Radford 2021)


class SiameseModelArgs(BackboneArgs, total=False):
    """Arguments of `SiameseModel` that tasks pass on to it."""

    embedding_size: int
    symmetric: bool
    two_pass: bool
    lin_ftrs: Sequence[int] | None
    ps: float | Sequence[float]
    concat_pool: bool


@forwards(BackboneArgs, to=Encoder)
class SiameseModel(nn.Module):
    """Siamese model: one encoder for both images of a pair, and a head on the comparison of their features.

    Maps two batches of images in 0..1, `(b, c, h, w)`, to `(b, num_outputs)`. Features are compared channel by channel;
    or, with the comparison `cosine`, the head maps those of each image to an embedding, and the outputs are logits of
    `different` and `same`, whose difference is a learned scale times the cosine similarity of the embeddings beyond a
    learned threshold. The head's leading pooling layers are applied to the feature map of each image before the
    comparison, which for `concatenation` with fastai's head is equal to pooling afterwards. With a head that does not
    begin with pooling, feature maps are compared, which must be of one size.

    Source: the model in chapter 15 of fastai's book, whose outputs are equal to those with `two_pass=True`; for
    `cosine`, the logits of SigLIP (Zhai 2023).

    Args:
        encoder: Name of a timm architecture, with or without a weight tag, or of a torchvision one, with the prefix
            `torchvision/` where timm has the name too; or an `Encoder`.
        head: A head of your own in place of fastai's, from `(b, n * encoder.num_features, h, w)`, where n is 2 for the
            comparison `concatenation`, 4 for `all` and 1 otherwise, to `(b, num_outputs)`, or for `cosine` to
            embeddings `(b, d)`.
        num_outputs: Outputs of the head; for `cosine`, those of the model, which are 2.
        comparison: Input of the head: the `concatenation` of the features of both images, their absolute `difference`,
            their `product`, or `all` of these; or `cosine`, the cosine similarity of the head's outputs.
        embedding_size: Dimension of the embeddings of the comparison `cosine`.
        symmetric: Whether to average the outputs over both orders of a pair; those of `cosine` do not depend on it.
        two_pass: Whether the encoder is applied to the first and second images separately, instead of to all in one
            batch. This makes a difference only in training, by the batch statistics of batch normalization.
        pretrained: Whether an encoder given by name gets its pretrained weights, downloaded where needed.
        weights: Local file with the weights of an encoder given by name, in place of a download.
        lin_ftrs: Widths of the head's hidden layers; by default one of 512.
        ps: Dropout probability before each linear layer of the head, or that of the last layer, with half of it for the
            others.
        concat_pool: Whether the head pools by maximum and average both, or by average alone.
        in_channels: Channels of the images, if the encoder is given by name; by default the architecture's own, 3 for
            pretrained weights.

    Raises:
        ValueError: If the comparison is unknown, `embedding_size` is below 1, or `num_outputs` is not 2 for `cosine`.

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
        embedding_size: int = 128,
        symmetric: bool = False,
        two_pass: bool = False,
        pretrained: bool = True,
        weights: str | Path | None = None,
        lin_ftrs: Sequence[int] | None = None,
        ps: float | Sequence[float] = 0.5,
        concat_pool: bool = True,
        in_channels: int | None = None,
        **backbone: Unpack[BackboneArgs],
    ) -> None:
        super().__init__()
        if comparison not in get_args(Comparison):
            raise ValueError(f"Expected `comparison` to be {' or '.join(get_args(Comparison))}, but got {comparison!r}")
        if comparison == "cosine" and num_outputs != 2:
            raise ValueError(f"Expected `num_outputs` to be 2 for the comparison cosine, but got {num_outputs}")
        if embedding_size < 1:
            raise ValueError(f"Expected `embedding_size` to be at least 1, but got {embedding_size}")
        self.encoder = as_encoder(
            encoder,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            readout=True,
            hypercolumns=False,
            **backbone,
        )
        self.comparison, self.symmetric, self.two_pass = comparison, symmetric, two_pass
        if head is None:
            width = self.encoder.num_features * {"concatenation": 2, "all": 4}.get(comparison, 1)
            outputs = embedding_size if comparison == "cosine" else num_outputs
            # torch's initialization, as in the book: with that of `vision_learner`, whose weights are larger, accuracy
            # was lower
            head = create_head(width, outputs, lin_ftrs, ps, concat_pool=concat_pool, init=False)
        self.head = head
        if comparison == "cosine":  # of the head, so that what selects its parameters selects these, too
            head.register_parameter("log_scale", nn.Parameter(torch.tensor(1 / 0.07).log()))  # SimCLR's temperature
            head.register_parameter("threshold", nn.Parameter(torch.tensor(0.5)))

    def forward(self, first: Tensor, second: Tensor, all_pairs: bool = False) -> Tensor:
        """Maps a pair of images to outputs; with `all_pairs`, see `from_features`."""
        return self.from_features(*self._map_both(self.features, first, second), all_pairs)

    def features(self, x: Tensor) -> Tensor:
        """Maps images in 0..1, `(b, c, h, w)`, to features, pooled by the head's leading layers if it has such."""
        return apply_pooling(self.head, self.encoder(x))

    def embeddings(self, features: Tensor) -> Tensor:
        """Maps features to the embeddings of the comparison `cosine`, `(b, d)` of unit length, in float32 at least."""
        return F.normalize(at_least_float32(apply_after_pooling(self.head, features)), dim=1)

    def from_features(self, first: Tensor, second: Tensor, all_pairs: bool = False) -> Tensor:
        """Maps the features of both images to outputs `(b, num_outputs)`.

        Args:
            first: Features of the first images.
            second: Features of the second images.
            all_pairs: Whether to return the logits `(2b, 2b)` that two of all images, the first and then the second,
                are of one class; for the comparison `cosine` only.

        Raises:
            ValueError: If `all_pairs` is set for another comparison.
        """
        if self.comparison == "cosine":
            a, b = self._map_both(self.embeddings, first, second)
            cosines = _cosines(torch.cat([a, b])) if all_pairs else (a * b).sum(dim=1)
            log_scale, threshold = self.head.get_parameter("log_scale"), self.head.get_parameter("threshold")
            same = log_scale.clamp(max=_MAX_LOG_SCALE).exp() * (cosines - threshold)
            return same if all_pairs else torch.stack([-same, same], dim=1) / 2
        if all_pairs:
            raise ValueError(f"Expected `all_pairs` only with the comparison cosine, but it is {self.comparison}")
        out = self._classify_pair(first, second)
        return (out + self._classify_pair(second, first)) / 2 if self.symmetric else out

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameter groups of the encoder, then one of the head."""
        return [*self.encoder.param_groups(), [*self.head.parameters()]]

    def _map_both(self, function: Callable[[Tensor], Tensor], first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Applies a function to the tensors of both images, in one batch unless `two_pass` or their shapes differ."""
        if self.two_pass or first.shape != second.shape:
            return function(first), function(second)
        # `chunk` and `len` would fix the batch size of an export
        a, b = torch.split(function(torch.cat([first, second])), [first.shape[0], second.shape[0]])
        return a, b

    def _classify_pair(self, first: Tensor, second: Tensor) -> Tensor:
        # pooling by maximum and average concatenates both, each of all channels, which are compared separately
        shape = (-1, self.encoder.num_features)
        a, b = torch.unflatten(first, 1, shape), torch.unflatten(second, 1, shape)
        parts = [a, b] if self.comparison in ("concatenation", "all") else []
        if self.comparison in ("difference", "all"):
            parts.append((a - b).abs())
        if self.comparison in ("product", "all"):
            parts.append(a * b)
        return apply_after_pooling(self.head, torch.cat(parts, dim=2).flatten(1, 2))


def _cosines(unit: Tensor) -> Tensor:
    """Returns the similarities `(n, n)` of vectors `(n, d)` of unit length, in full precision also under autocast."""
    with torch.autocast(unit.device.type, enabled=False):
        return unit @ unit.mT
