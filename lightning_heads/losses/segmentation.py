"""Losses of logits `(b, c, h, w)` against masks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.tensors import at_least_float32
from .weighted_sum import WeightedSum

LossName = Literal["cross_entropy", "dice", "focal", "tversky"]


class SegmentationLoss(nn.Module):
    """What the losses of masks share; a subclass gives `forward`, the loss of logits and target as one number.

    Logits are `(b, c, h, w)`. Targets are class indices `(b, h, w)`; with `multilabel`, `(b, c, h, w)` of 0 and 1,
    where a single class may do without its channel. Whatever the precision of the logits, the loss is in float32 at
    least.

    Args:
        multilabel: Whether a pixel has any number of the classes, by sigmoid, or exactly one, by softmax.
        ignore_index: Value of the target that counts nowhere. Where nothing counts, the loss and its gradients are 0.
        class_weights: Weight of each class in the mean over pixels or over classes.

    Raises:
        ValueError: If the target is of another shape, or weights are fewer than two or negative.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if class_weights is not None and (len(class_weights) < 2 or min(class_weights) < 0):
            raise ValueError(
                "Expected `class_weights` to be at least two numbers from 0, as they weigh classes against each other, "
                f"but got {[*class_weights]}"
            )
        self.multilabel = multilabel
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor([float(w) for w in class_weights])
        # whoever builds the loss holds them: as state they would overrule others on loading
        self.register_buffer("class_weights", weights, persistent=False)

    def read(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns precise logits, the target with 0 where it is ignored, and where it counts."""
        if self.multilabel and logits.shape[1] == 1 and target.ndim == 3:
            target = target[:, None]
        expected = logits.shape if self.multilabel else (len(logits), *logits.shape[2:])
        if target.shape != expected:
            given, wanted = tuple(target.shape), tuple(expected)
            raise ValueError(f"Expected a target of {wanted} for logits of {tuple(logits.shape)}, but got {given}")
        logits = at_least_float32(logits)
        counts = torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
        target = target.to(logits.dtype) if self.multilabel else target.long()
        return logits, target.masked_fill(~counts, 0), counts

    def pixel_weights(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Returns the weight of each entry of the target, 0 where it is ignored."""
        if self.class_weights is None:
            return counts.to(logits.dtype)
        weights = self.class_weights.to(logits.dtype)
        return counts * (weights[:, None, None] if self.multilabel else weights[target])


class CrossEntropyLoss(SegmentationLoss):
    """Cross entropy, binary with `multilabel`, as the weighted mean over pixels.

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`.
        label_smoothing: Share of each target that is spread over all classes (Szegedy 2016).
    """

    def __init__(
        self,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(multilabel=multilabel, ignore_index=ignore_index, class_weights=class_weights)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"Expected `label_smoothing` in [0, 1], but got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, target, counts = self.read(logits, target)
        weights = self.pixel_weights(logits, target, counts)
        if self.multilabel:
            smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
            loss = weights * F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        else:
            # weighted here, as what is smoothed onto a class has that class's weight
            weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
            smoothing = self.label_smoothing
            loss = counts * F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=smoothing)
        return _share(loss.sum(), weights.sum())


class FocalLoss(SegmentationLoss):
    """Cross entropy that counts less the surer the right answer is, as the weighted mean over pixels (Lin 2017).

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`; the paper's alpha.
        gamma: Power of the probability that is missing from the right answer; 0 is the cross entropy.
    """

    def __init__(
        self,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        gamma: float = 2.0,
    ) -> None:
        super().__init__(multilabel=multilabel, ignore_index=ignore_index, class_weights=class_weights)
        if not gamma >= 0:
            raise ValueError(f"Expected `gamma` to be at least 0, but got {gamma}")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, target, counts = self.read(logits, target)
        if self.multilabel:
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            loss = F.cross_entropy(logits, target, reduction="none")
        # a power below 1 has no gradient at 0
        missing = -torch.expm1(-loss).clamp(max=-torch.finfo(loss.dtype).eps)
        weights = self.pixel_weights(logits, target, counts)
        return _share((weights * missing**self.gamma * loss).sum(), weights.sum())


class TverskyLoss(SegmentationLoss):
    """One minus the Tversky index, hits over hits and weighted misses of both kinds (Salehi 2017).

    For each class, probabilities are summed over all pixels of the batch; the loss is the weighted mean over the
    classes that occur in the target. A class that does not has an index of 0 whatever is predicted, which teaches
    nothing: to punish what is predicted of it, add a cross entropy.

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`.
        alpha: Weight of false positives.
        beta: Weight of false negatives; above `alpha` it favors recall.
    """

    def __init__(
        self,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
        alpha: float = 0.3,
        beta: float = 0.7,
    ) -> None:
        super().__init__(multilabel=multilabel, ignore_index=ignore_index, class_weights=class_weights)
        if not (alpha >= 0 and beta >= 0):
            raise ValueError(f"Expected `alpha` and `beta` to be at least 0, but got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, target, counts = self.read(logits, target)
        if self.multilabel:
            probabilities, true = logits.sigmoid(), target
        else:
            probabilities, counts = logits.softmax(dim=1), counts[:, None]
            classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
            true = (target[:, None] == classes) & counts
        hits = (probabilities * true).sum((0, 2, 3))
        predicted, actual = (probabilities * counts).sum((0, 2, 3)), true.sum((0, 2, 3))
        index = _share(hits, hits + self.alpha * (predicted - hits) + self.beta * (actual - hits))
        weights = (actual > 0).to(index.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights.to(index.dtype)
        return _share((weights * (1 - index)).sum(), weights.sum())


class DiceLoss(TverskyLoss):
    """One minus the Dice coefficient: the Tversky loss that weighs misses of both kinds alike (Milletari 2016).

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`.
    """

    def __init__(
        self,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            multilabel=multilabel, ignore_index=ignore_index, class_weights=class_weights, alpha=0.5, beta=0.5
        )


def segmentation_loss(
    loss: LossName | Mapping[str, float] = "cross_entropy",
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> nn.Module:
    """Builds a loss by its name, or the weighted sum of several.

    Args:
        loss: A name, or a weight for each of several names.
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`.
        label_smoothing: See `CrossEntropyLoss`, the only one to have it.

    Raises:
        ValueError: If a name is unknown, or labels are smoothed without a cross entropy.

    >>> segmentation_loss({"cross_entropy": 1.0, "dice": 0.5})(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4))
    tensor(0.8598)
    """
    weights = {loss: 1.0} if isinstance(loss, str) else {**loss}
    kinds: dict[str, Callable[..., SegmentationLoss]] = {
        "cross_entropy": partial(CrossEntropyLoss, label_smoothing=label_smoothing),
        "dice": DiceLoss,
        "focal": FocalLoss,
        "tversky": TverskyLoss,
    }
    if not weights or not weights.keys() <= kinds.keys():
        raise ValueError(f"Expected `loss` to be of {', '.join(kinds)}, but got {loss!r}")
    if label_smoothing and "cross_entropy" not in weights:
        raise ValueError(f"Expected `label_smoothing` with cross_entropy, but `loss` is {loss!r}")
    losses = [
        kinds[name](multilabel=multilabel, ignore_index=ignore_index, class_weights=class_weights) for name in weights
    ]
    return losses[0] if isinstance(loss, str) else WeightedSum(losses, [*weights.values()])


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Returns `part / whole`, 0 where the whole is 0."""
    return part / whole.where(whole > 0, torch.ones_like(whole))
