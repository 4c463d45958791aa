"""Base class of metrics of embeddings."""

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ..utils.tensors import at_least_float32


class EmbeddingMetric(Metric):
    """Stores embeddings `(b, d)`, at unit length, and class indices `(b,)` of all batches until `compute`."""

    full_state_update = False
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

    def stored(self) -> tuple[Tensor, Tensor]:
        """Returns the embeddings `(n, d)` and class indices `(n,)` of all batches."""
        return dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
