"""Losses that bring embeddings of one class together and keep those of others apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.tensors import at_least_float32


class _EmbeddingLoss(nn.Module):
    """A loss of embeddings `(b, d)`, which it normalizes, and class indices `(b,)`, over pairs within the batch.

    It is computed in float32 at least. A batch without any pair that the loss is about has loss 0, and gradients of 0.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"Expected embeddings (b, d) and class indices (b,), but got {tuple(embeddings.shape)} and "
                f"{labels.dtype} of {tuple(labels.shape)}"
            )
        different = labels[:, None] != labels
        same = ~(different | torch.eye(len(labels), dtype=torch.bool, device=labels.device))
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.pair_loss(F.normalize(at_least_float32(embeddings), dim=1), same, different)

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        """Returns the loss of unit vectors; the masks `(b, b)` tell pairs of one class from those of two."""
        raise NotImplementedError


class ContrastiveLoss(_EmbeddingLoss):
    """Distances of images of one class, and what those of two classes lack of a margin (Hadsell 2006).

    Distances are Euclidean, from 0 to 2, and not squared. Each kind of pair has its mean over those that the margin
    does not satisfy yet. Embeddings are `(b, d)` of any length, labels class indices `(b,)`.

    Args:
        positive_margin: Distance up to which a pair of one class is near enough.
        negative_margin: Distance from which on a pair of two classes is far enough.

    Raises:
        ValueError: If a margin is negative, or the shapes are others.

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
        too_far = F.relu(distances - self.positive_margin) * same
        too_near = F.relu(self.negative_margin - distances) * different
        return _mean_of_positive(too_far) + _mean_of_positive(too_near)


class TripletLoss(_EmbeddingLoss):
    """How far the farthest image of its class is from each image, compared to the nearest of another (Hermans 2017).

    This is the "batch hard" loss: the difference of both Euclidean distances plus a margin, as the mean over the images
    where it is above 0. Embeddings are `(b, d)` of any length, labels class indices `(b,)`.

    Args:
        margin: By how much the other class has to be farther away.

    Raises:
        ValueError: If the margin is negative, or the shapes are others.

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
        farthest = distances.masked_fill(~same, 0).amax(dim=1)
        nearest = distances.masked_fill(~different, torch.inf).amin(dim=1)
        return _mean_of_positive(F.relu(farthest - nearest + self.margin) * same.any(dim=1))


class NTXentLoss(_EmbeddingLoss):
    """Cross entropy of finding an image of the same class among all of other classes, by cosine (Chen 2020, SimCLR).

    Each ordered pair of one class counts by itself: its cosine is compared to those of its first image with all images
    of other classes. Embeddings are `(b, d)` of any length, labels class indices `(b,)`.

    Args:
        temperature: What cosines are divided by; the lower, the more the nearest images count.

    Raises:
        ValueError: If the temperature is not above 0, or the shapes are others.

    >>> NTXentLoss(1.0)(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor(1.0032)
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"Expected `temperature` to be above 0, but got {temperature}")
        self.temperature = temperature

    def pair_loss(self, unit: Tensor, same: Tensor, different: Tensor) -> Tensor:
        logits = unit @ unit.mT / self.temperature
        # finite, as where there are no others infinity would make gradients NaN
        others = logits.masked_fill(~different, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
        return (F.softplus(others - logits) * same).sum() / same.sum().clamp(min=1)


def _distances(unit: Tensor) -> Tensor:
    """Returns distances `(b, b)` by differences; from products they would be too coarse for near vectors."""
    distances: Tensor = torch.linalg.vector_norm(unit[:, None] - unit, dim=-1)
    return distances


def _mean_of_positive(values: Tensor) -> Tensor:
    """Returns the mean over the values above 0, of values from 0, or 0 where there are none."""
    return values.sum() / (values > 0).sum().clamp(min=1)
