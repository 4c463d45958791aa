"""Retrieval metrics of embeddings: recall at k and mean average precision."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ..utils.tensors import at_least_float32

# cosine similarities computed at once: 64 MB in float32, and a few times as much to rank them
_BLOCK = 2**24


class _Retrieval(Metric):
    """Base class of retrieval metrics: the mean score of queries, each a sample that all others are ranked for.

    Samples are ranked by cosine similarity; relevant are those of the query's class. A sample that is alone in its
    class is no query, but is ranked for the others. Without any query the score is NaN. With several ranks (processes),
    Lightning's distributed sampler repeats a few samples to give each rank as many, and these retrieve their own
    copies: compute scores of small data sets on one rank. The embeddings `(b, d)` and class indices `(b,)` of all
    batches are stored until `compute`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Stores a batch."""
        self.embeddings.append(F.normalize(at_least_float32(embeddings.detach()), dim=1))
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """Returns the mean score of all queries."""
        embeddings, labels = dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
        _, classes, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        queries = (sizes[classes] > 1).nonzero()[:, 0]
        scores = [embeddings.new_empty(0)]
        for rows in queries.split(max(1, _BLOCK // len(labels))):
            query = rows[:, None]
            cosines = (embeddings[rows] @ embeddings.mT).scatter(1, query, -torch.inf)
            relevant = (labels[query] == labels).scatter(1, query, False)
            scores.append(self.query_scores(cosines, relevant).to(embeddings.dtype))
        return torch.cat(scores).mean()

    def query_scores(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        """Returns the score of each query `(q,)`.

        Args:
            cosines: Cosine similarities `(q, n)` with all n samples, -inf for the query itself.
            relevant: Mask `(q, n)` of the other samples of the query's class.
        """
        raise NotImplementedError


class RecallAtK(_Retrieval):
    """Recall at k: the fraction of samples with another of their class among their k nearest neighbors.

    This is the recall of the metric learning literature (Jégou 2011), which torchmetrics calls the hit rate.
    Embeddings are `(b, d)`, compared by cosine similarity, labels class indices `(b,)`. Samples that are alone in their
    class are left out of the mean; if all are, it is NaN.

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
        nearest = cosines.topk(min(self.k, cosines.shape[1]), dim=1).indices
        return relevant.gather(1, nearest).any(dim=1)


class RetrievalMAP(_Retrieval):
    """Mean average precision, where each sample is a query that all others are ranked for by cosine similarity.

    Embeddings are `(b, d)`, labels class indices `(b,)`. Samples that are alone in their class are left out of the
    mean; if all are, it is NaN.

    >>> RetrievalMAP()(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8333)
    """

    def query_scores(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        hits = relevant.gather(1, cosines.argsort(dim=1, descending=True))
        ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
        return (hits.cumsum(dim=1) / ranks * hits).sum(dim=1) / hits.sum(dim=1)
