"""Metric learning losses over the pairs of a batch: contrastive, batch-hard triplet and NT-Xent."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.tensors import at_least_float32


class _EmbeddingLoss(nn.Module):
    """Base class of losses of embeddings `(b, d)` and class indices `(b,)` over the pairs of a batch.

    Embeddings are normalized to unit length. The loss is computed in float32 at least. A batch without any pair that
    contributes has a loss and gradients of 0. No tensor is larger than the embeddings or `(b, b)`.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"Expected embeddings (b, d) and class indices (b,), but got {tuple(embeddings.shape)} and "
                f"{labels.dtype} of {tuple(labels.shape)}"
            )
        same, different = pair_masks(labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.pair_loss(F.normalize(at_least_float32(embeddings), dim=1), same, different)

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        """Returns the loss of unit vectors `(b, d)`, with masks `(b, b)` of pairs of the same and different classes."""
        raise NotImplementedError


def pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns masks `(b, b)` of the pairs of two samples of one class, and of different classes, by labels `(b,)`."""
    different = labels[:, None] != labels
    return ~(different | torch.eye(len(labels), dtype=torch.bool, device=labels.device)), different


class ContrastiveLoss(_EmbeddingLoss):
    """Contrastive loss: the distance of pairs of one class beyond a margin, of other pairs up to one (Hadsell 2006).

    Distances are Euclidean, from 0 to 2, and not squared. The loss is the sum of two means, of pairs of one class and
    of different classes, each over the pairs that violate their margin. Embeddings are `(b, d)` of any length, labels
    class indices `(b,)`.

    Args:
        positive_margin: Distance up to which a pair of one class has no loss.
        negative_margin: Distance from which a pair of different classes has no loss.

    Raises:
        ValueError: If a margin is negative, or embeddings or labels have another shape or type.

    >>> ContrastiveLoss()(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor(2.4142)
    """

    def __init__(self, positive_margin: float = 0.0, negative_margin: float = 1.0) -> None:
        super().__init__()
        if positive_margin < 0 or negative_margin < 0:
            raise ValueError(
                "Expected `positive_margin` and `negative_margin` to be at least 0, but got "
                f"{positive_margin} and {negative_margin}"
            )
        self.positive_margin, self.negative_margin = positive_margin, negative_margin

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        distances = _distances(unit)
        positive = F.relu(distances - self.positive_margin) * same
        negative = F.relu(self.negative_margin - distances) * different
        return _mean_of_nonzero(positive) + _mean_of_nonzero(negative)


class TripletLoss(_EmbeddingLoss):
    """Batch-hard triplet loss: hardest positive minus hardest negative distance, plus a margin (Hermans 2017).

    For each sample, the hardest positive is the farthest of its class in the batch, the hardest negative the nearest of
    another class. Distances are Euclidean. The loss is the mean over the samples where it is above 0. Embeddings are
    `(b, d)` of any length, labels class indices `(b,)`.

    Args:
        margin: Distance by which the hardest negative has to be farther than the hardest positive.

    Raises:
        ValueError: If the margin is negative, or embeddings or labels have another shape or type.

    >>> TripletLoss()(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor(0.9071)
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        if margin < 0:
            raise ValueError(f"Expected `margin` to be at least 0, but got {margin}")
        self.margin = margin

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        distances = _distances(unit)
        hardest_positive = distances.masked_fill(~same, 0).amax(dim=1)
        hardest_negative = distances.masked_fill(~different, torch.inf).amin(dim=1)
        return _mean_of_nonzero(F.relu(hardest_positive - hardest_negative + self.margin) * same.any(dim=1))


class NTXentLoss(_EmbeddingLoss):
    """NT-Xent loss: cross entropy of a positive among all negatives by cosine similarity (Chen 2020, SimCLR).

    Each ordered pair of one class is a positive: its similarity is one logit, those of its first sample with all
    samples of other classes are the others. The loss is the mean over these pairs. Embeddings are `(b, d)` of any
    length, labels class indices `(b,)`.

    Args:
        temperature: Divisor of the cosine similarities; a lower one gives the nearest samples more weight.

    Raises:
        ValueError: If the temperature is not above 0, or embeddings or labels have another shape or type.

    >>> NTXentLoss(1.0)(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor(1.0032)
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"Expected `temperature` to be above 0, but got {temperature}")
        self.temperature = temperature

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        return nt_xent(unit @ unit.mT / self.temperature, same, different)


def nt_xent(logits: Tensor, same: Tensor, different: Tensor) -> Tensor:
    """NT-Xent loss of logits `(b, b)`, with masks `(b, b)` of pairs of the same and different classes."""
    # not -inf, whose gradients would be NaN for a sample without negatives
    negatives = logits.masked_fill(~different, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
    return (F.softplus(negatives - logits) * same).sum() / same.sum().clamp(min=1)


def _distances(unit: Tensor) -> Tensor:
    """Returns Euclidean distances `(b, b)` of vectors `(b, d)`."""
    distances: Tensor = _Distances.apply(unit)
    return distances


class _Distances(torch.autograd.Function):
    """Euclidean distances with a backward pass that needs no tensor `(b, b, d)`, as that of `torch.cdist` does on CUDA.

    They are computed by differences, since dot products are too imprecise for close vectors.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, distances = ctx.saved_tensors
        # the sum of w[i, j] * (x[i] - x[j]) over j, whose terms cancel for close vectors; MPS has no float64
        dtype = torch.float64 if x.device.type in ("cpu", "cuda") else x.dtype
        weights = (gradient + gradient.mT) / distances.where(distances > 0, torch.inf)
        wide, weights = x.to(dtype), weights.to(dtype)
        total: Tensor = weights.sum(dim=1, keepdim=True) * wide - weights @ wide
        return total.to(x.dtype)


def _mean_of_nonzero(values: Tensor) -> Tensor:
    """Returns the mean of the nonzero among values that are at least 0, or 0 if there are none."""
    return values.sum() / (values > 0).sum().clamp(min=1)
