"""Metrics of verification by the cosine similarity of embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .embedding_metric import EmbeddingMetric
from .verification import equal_error_rate

_BLOCK = 2**22  # cosine similarities computed at once: 16 MB in float32, and several times as much to count them
_STEPS = 2**16  # similarities from -1 to 1 are rounded to one of this number of steps


class _EmbeddingVerification(EmbeddingMetric):
    """Base class of metrics of all pairs of samples, which are accepted as of one class from a threshold on.

    A pair's score is the cosine similarity of its embeddings, rounded to steps of 3e-5. Embeddings are `(b, d)` of any
    length, labels class indices `(b,)`. Without a pair of one class, without a pair of different classes, or with
    embeddings that are not finite, the metric is NaN.
    """

    def acceptance_rates(self) -> tuple[Tensor, Tensor]:
        """Returns the fractions of pairs of different classes, and of one class, that are accepted at each threshold.

        They are `(n,)` and rise from 0 to 1, as the threshold falls from above 1 to -1 in equal steps.
        """
        embeddings, labels = self.stored()
        counts = embeddings.new_zeros(2, _STEPS + 1, dtype=torch.long)
        height = max(1, _BLOCK // len(labels))
        for start in range(0, len(labels), height):
            rows = slice(start, start + height)
            steps = ((embeddings[rows] @ embeddings[start:].mT).nan_to_num().clamp(-1, 1) + 1) * (_STEPS / 2)
            steps = steps.round().long()
            same = labels[rows, None] == labels[start:]
            pairs = torch.ones_like(same).triu(diagonal=1)  # each once
            for count, selected in zip(counts, (pairs & ~same, pairs & same), strict=True):
                count += steps[selected].bincount(minlength=_STEPS + 1)
        accepted = F.pad(counts.flip(1).cumsum(dim=1), (1, 0))
        rates = (accepted / accepted[:, -1:]).where(embeddings.isfinite().all(), torch.nan)
        return rates[0], rates[1]

    def accuracies(self) -> Tensor:
        """Returns the mean of true positive and true negative rate at each threshold, `(n,)`."""
        false_positive_rate, true_positive_rate = self.acceptance_rates()
        return (true_positive_rate + 1 - false_positive_rate) / 2


class EmbeddingEqualErrorRate(_EmbeddingVerification):
    """Equal error rate of all pairs of samples, by the cosine similarity of their embeddings.

    See `EqualErrorRate`. Embeddings are `(b, d)` of any length, labels class indices `(b,)`. Similarities are rounded
    to steps of 3e-5. Without a pair of one class, without a pair of different classes, or with embeddings that are not
    finite, it is NaN.

    >>> EmbeddingEqualErrorRate()(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    tensor(0.5000)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Returns the equal error rate of all stored samples."""
        return equal_error_rate(*self.acceptance_rates())


class VerificationAccuracy(_EmbeddingVerification):
    """Accuracy of verification: of all pairs of samples, as if there were as many of one class as of different ones.

    A pair is taken for one class if the cosine similarity of its embeddings is above the threshold. The accuracy is the
    mean of that of pairs of one class and that of pairs of different classes. Embeddings are `(b, d)` of any length,
    labels class indices `(b,)`. Similarities are rounded to steps of 3e-5. Without a pair of one class, without a pair
    of different classes, or with embeddings that are not finite, it is NaN.

    Args:
        threshold: The threshold; by default the one with the highest accuracy.

    >>> embeddings, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> VerificationAccuracy()(embeddings, labels), VerificationAccuracy(threshold=0.7)(embeddings, labels)
    (tensor(0.7500), tensor(0.2500))
    """

    higher_is_better = True

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.threshold = threshold

    def compute(self) -> Tensor:
        """Returns the accuracy of all stored samples."""
        accuracies = self.accuracies()
        if self.threshold is None:
            return accuracies.max()
        lowest_accepted = math.floor((self.threshold + 1) * (_STEPS / 2) + 0.5)
        return accuracies[_STEPS + 1 - min(max(lowest_accepted, 0), _STEPS + 1)]


class VerificationThreshold(_EmbeddingVerification):
    """Threshold of the cosine similarity at which verification is the most accurate; see `VerificationAccuracy`.

    If the accuracy is equal in a range of thresholds, it is the middle of the highest such range. Embeddings are
    `(b, d)` of any length, labels class indices `(b,)`. Without a pair of one class, without a pair of different
    classes, or with embeddings that are not finite, it is NaN.

    >>> VerificationThreshold()(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    tensor(0.5522)
    """

    def compute(self) -> Tensor:
        """Returns the threshold for all stored samples."""
        accuracies = self.accuracies()
        best = accuracies.argmax()
        length = (accuracies[best:] == accuracies[best]).long().cumprod(dim=0).sum()
        lowest_accepted = _STEPS + 1 - (best + (length - 1) / 2)
        return ((lowest_accepted - 0.5) * (2 / _STEPS) - 1).where(accuracies[best].isfinite(), torch.nan)
