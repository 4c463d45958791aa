"""Terms of a loss, and their weights in the mean over a data set."""

import torch
from torch import Tensor, nn

from ..utils.tensors import at_least_float32
from .weighted_sum import WeightedSum


def loss_terms(criterion: nn.Module, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the loss of a batch as the terms of a sum, and the weight of each in the mean over a data set.

    Where a loss is a weighted mean, its mean over batches with these weights does not depend on the batch size. A
    criterion may define its weight by a method `batch_weight(outputs, target)`. Otherwise it is the number of samples,
    except for torch's cross-entropy and negative log-likelihood, where it is the total class weight of the targets that
    are not ignored.

    Args:
        criterion: Loss of outputs and target; a `WeightedSum` has several terms.
        outputs: Outputs of the model.
        target: Target of the batch, `(b, ...)`.

    Returns:
        Losses and weights, both `(k,)` for k terms.

    >>> criterion = nn.CrossEntropyLoss(ignore_index=255)
    >>> loss_terms(criterion, torch.zeros(4, 2), torch.tensor([0, 1, 1, 255]))
    (tensor([0.6931]), tensor([3.]))
    """
    if isinstance(criterion, WeightedSum):
        terms = [loss_terms(loss, outputs, target) for loss in criterion.losses]
        losses = [factor * loss for factor, (loss, _) in zip(criterion.weights, terms, strict=True)]
        return torch.cat(losses), torch.cat([weight for _, weight in terms])
    loss = at_least_float32(criterion(outputs, target)).view(1)
    return loss, loss.new_ones(1) * _batch_weight(criterion, outputs, target)


def _batch_weight(criterion: nn.Module, outputs: Tensor, target: Tensor) -> Tensor | int:
    """Returns the weight of a batch: the denominator of the criterion's mean."""
    method = getattr(criterion, "batch_weight", None)
    if method is not None:
        weight: Tensor = method(outputs, target)
        return weight
    if not isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss) or target.is_floating_point():
        return len(target)
    target = target.long()
    valid = target != criterion.ignore_index
    if criterion.weight is None:
        return valid.sum()
    return (at_least_float32(criterion.weight)[target.where(valid, 0)] * valid).sum()
