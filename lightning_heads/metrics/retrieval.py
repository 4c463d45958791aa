"""How well images are found by their embeddings, and how well a score tells yes from no."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ..utils.tensors import at_least_float32

# cosines at once: 64 MB of them, and a few times as much to rank them
_BLOCK = 2**24


class _Retrieval(Metric):
    """The mean over queries: each image searches all others by cosine, and those of its class are what is sought.

    Images that are alone in their class search for nothing and do not count; they are found all the same. Where all
    are alone the score is NaN. Over several processes Lightning repeats a few images to make shares equal, which then
    find themselves: compare scores of small sets on one. The embeddings `(b, d)` and class indices `(b,)` of all
    batches are kept until the end.
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
        """Keeps a batch."""
        self.embeddings.append(F.normalize(at_least_float32(embeddings.detach()), dim=1))
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """Returns the mean score of all queries."""
        embeddings, labels = dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
        _, classes, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        queries = (sizes[classes] > 1).nonzero()[:, 0]
        scores = [embeddings.new_empty(0)]
        for rows in queries.split(max(1, _BLOCK // len(labels))):
            itself = rows[:, None]
            cosines = (embeddings[rows] @ embeddings.mT).scatter(1, itself, -torch.inf)
            sought = (labels[itself] == labels).scatter(1, itself, False)
            scores.append(self.query_scores(cosines, sought).to(embeddings.dtype))
        return torch.cat(scores).mean()

    def query_scores(self, cosines: Tensor, sought: Tensor) -> Tensor:
        """Returns the score of each query `(q,)` from cosines with all n images, its own -inf, and which it seeks."""
        raise NotImplementedError


class RecallAtK(_Retrieval):
    """The share of images with another of their class among their k nearest.

    This is recall as the literature of metric learning has it (Jégou 2011), which torchmetrics calls the hit rate.
    Embeddings are `(b, d)`, compared by cosine, labels class indices `(b,)`. Images that are alone in their class do
    not count; where all are, it is NaN.

    Args:
        k: How many images are found.

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

    def query_scores(self, cosines: Tensor, sought: Tensor) -> Tensor:
        found = cosines.topk(min(self.k, cosines.shape[1]), dim=1).indices
        return sought.gather(1, found).any(dim=1)


class RetrievalMAP(_Retrieval):
    """Mean average precision: how early the images of its class come among all others, by cosine, for each image.

    Embeddings are `(b, d)`, labels class indices `(b,)`. Images that are alone in their class do not count; where all
    are, it is NaN.

    >>> RetrievalMAP()(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8333)
    """

    def query_scores(self, cosines: Tensor, sought: Tensor) -> Tensor:
        hits = sought.gather(1, cosines.argsort(dim=1, descending=True))
        ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
        return (hits.cumsum(dim=1) / ranks * hits).sum(dim=1) / hits.sum(dim=1)
