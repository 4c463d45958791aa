"""Retrieval metrics of embeddings: recall at k and mean average precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .embedding_metric import EmbeddingMetric

# cosine similarities computed at once: 16 MB in float32, and up to twenty times as much to rank them
_BLOCK = 2**22


class _Retrieval(EmbeddingMetric):
    """Base class of retrieval metrics: the mean score of queries, each a sample that all others are ranked for.

    Samples are ranked by cosine similarity; relevant are those of the query's class. Where similarities are equal up to
    rounding, the score is the mean over all orders. A sample that is alone in its class is no query, but is ranked for
    the others. Without any query, or with embeddings that are not finite, it is NaN. With several ranks (processes),
    Lightning's distributed sampler repeats a few samples to give each rank as many, and these retrieve their own
    copies: compute scores of small data sets on one rank.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Returns the mean score of all queries."""
        embeddings, labels = self.stored()
        _, classes, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        queries = (sizes[classes] > 1).nonzero()[:, 0]
        step = 16 * torch.finfo(embeddings.dtype).eps  # similarities of equal pairs differ by a few eps
        scores = [embeddings.new_empty(0)]
        for rows in queries.split(max(1, _BLOCK // len(labels))):
            query = rows[:, None]
            cosines = (embeddings[rows] @ embeddings.mT / step).round().scatter(1, query, -torch.inf)
            relevant = (labels[query] == labels).scatter(1, query, False)
            scores.append(self.query_scores(cosines, relevant).to(embeddings.dtype))
        return torch.cat(scores).mean().where(embeddings.isfinite().all(), torch.nan)

    def query_scores(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        """Returns the score of each query `(q,)`, as the mean over all orders of equal similarities.

        Args:
            cosines: Cosine similarities `(q, n)` with all n samples in any unit, -inf for the query itself.
            relevant: Mask `(q, n)` of the other samples of the query's class.
        """
        raise NotImplementedError


class RecallAtK(_Retrieval):
    """Recall at k: the fraction of samples with another of their class among their k nearest neighbors.

    This is the recall of the metric learning literature (Jégou 2011), which torchmetrics calls the hit rate.
    Embeddings are `(b, d)`, compared by cosine similarity, labels class indices `(b,)`. Samples that are alone in their
    class are left out of the mean; if all are, it is NaN, as with embeddings that are not finite. Of neighbors that are
    equally near, the k nearest are a random choice, and the score is its expectation.

    Args:
        k: Number of nearest neighbors.

    Raises:
        ValueError: If `k` is below 1.

    >>> RecallAtK(1)(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]]), torch.tensor([0, 0, 1, 1]))
    tensor(0.7500)
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"Expected `k` to be at least 1, but got {k}")
        self.k = k

    def query_scores(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        k = min(self.k, cosines.shape[1])
        farthest = cosines.topk(k, dim=1).values[:, -1:]
        nearer, tied = cosines > farthest, cosines == farthest
        places = k - nearer.sum(dim=1, keepdim=True)
        count, wrong = tied.sum(dim=1, keepdim=True), (tied & ~relevant).sum(dim=1, keepdim=True)
        # probability that none of the tied samples that are drawn for the remaining places is relevant
        drawn = torch.arange(k, device=cosines.device)
        missed = ((wrong - drawn).clamp(min=0) / (count - drawn)).where(drawn < places, 1).prod(dim=1)
        return (1 - missed).where(~(relevant & nearer).any(dim=1), 1)


class RetrievalMAP(_Retrieval):
    """Mean average precision, where each sample is a query that all others are ranked for by cosine similarity.

    Embeddings are `(b, d)`, labels class indices `(b,)`. Samples that are alone in their class are left out of the
    mean; if all are, it is NaN, as with embeddings that are not finite. Where similarities are equal, it is the mean
    over all orders (McSherry 2008).

    >>> RetrievalMAP()(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8333)
    """

    def query_scores(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        distances, order = (-cosines).sort(dim=1)
        hits = F.pad(relevant.gather(1, order).cumsum(dim=1), (1, 0))  # within the first 0, 1, ... n samples
        ranks = torch.arange(1, hits.shape[1], device=hits.device)
        # the run of equal similarities that each rank is in
        start, end = (torch.searchsorted(distances, distances, right=right) for right in (False, True))
        before = hits.gather(1, start)
        count, relevant_count = end - start, hits.gather(1, end) - before
        # a tied sample is relevant with that share; the other relevant ones are spread evenly over the other ranks
        precision = (before + 1 + (ranks - 1 - start) * (relevant_count - 1) / (count - 1).clamp(min=1)) / ranks
        return (precision * relevant_count / count).sum(dim=1) / hits[:, -1]
