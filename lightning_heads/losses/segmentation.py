"""Segmentation losses of logits `(b, c, h, w)` and masks."""

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
    """Base class of segmentation losses; a subclass implements `forward(logits, target)`, which returns a scalar.

    Logits are `(b, c, h, w)`. Targets are class indices `(b, h, w)`; with `multilabel`, `(b, c, h, w)` of 0 and 1,
    where the channel of a single class may be omitted. The loss is computed in float32 at least.

    Args:
        multilabel: Whether a pixel has any number of the classes, by sigmoid, or exactly one, by softmax.
        ignore_index: Value of the target that is ignored. If all pixels are, the loss and its gradients are 0.
        class_weights: Weight of each class in the mean over pixels or over classes.

    Raises:
        ValueError: If the target has another shape, or weights are fewer than two or negative.
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
        # not persistent, since weights in a loaded state dict would replace those that the loss is built with
        self.register_buffer("class_weights", weights, persistent=False)

    def read(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns logits in float32 at least, the target with 0 where it is ignored, and the mask of what is not.

        Raises:
            ValueError: If the target has another shape.
        """
        if self.multilabel and logits.shape[1] == 1 and target.ndim == 3:
            target = target[:, None]
        expected = logits.shape if self.multilabel else (len(logits), *logits.shape[2:])
        if target.shape != expected:
            raise ValueError(
                f"Expected a target of {tuple(expected)} for logits of {tuple(logits.shape)}, but got "
                f"{tuple(target.shape)}"
            )
        logits = at_least_float32(logits)
        valid = torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
        target = target.to(logits.dtype) if self.multilabel else target.long()
        return logits, target.masked_fill(~valid, 0), valid

    def pixel_weights(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Returns the weight of each entry of the target, 0 where it is ignored."""
        if self.class_weights is None:
            return valid.to(logits.dtype)
        weights = self.class_weights.to(logits.dtype)
        return valid * (weights[:, None, None] if self.multilabel else weights[target])

    def batch_weight(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the weight of a batch in the mean over a data set: that of all its pixels."""
        return self.pixel_weights(*self.read(logits, target)).sum()


class CrossEntropyLoss(SegmentationLoss):
    """Cross entropy, binary with `multilabel`, as the weighted mean over pixels.

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`.
        label_smoothing: Fraction of each target that is spread evenly over all classes, or with `multilabel` over 0 and
            1 (Szegedy 2016).
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
        logits, target, valid = self.read(logits, target)
        weights = self.pixel_weights(logits, target, valid)
        if self.multilabel:
            smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
            loss = weights * F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        else:
            # weighted by torch, as the part of the target that smoothing gives to a class has that class's weight
            weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
            smoothing = self.label_smoothing
            loss = valid * F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=smoothing)
        return _safe_divide(loss.sum(), weights.sum())


class FocalLoss(SegmentationLoss):
    """Focal loss: cross entropy times `(1 - p)**gamma`, where p is the probability of the true class (Lin 2017).

    The loss is the weighted mean over pixels.

    Args:
        multilabel: See `SegmentationLoss`.
        ignore_index: See `SegmentationLoss`.
        class_weights: See `SegmentationLoss`; the paper's alpha.
        gamma: Exponent of the modulating factor; 0 is the cross entropy.
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
        logits, target, valid = self.read(logits, target)
        if self.multilabel:
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            loss = F.cross_entropy(logits, target, reduction="none")
        # 1 - p, but not 0, where the gradient of an exponent below 1 is infinite
        complement = -torch.expm1(-loss).clamp(max=-torch.finfo(loss.dtype).eps)
        weights = self.pixel_weights(logits, target, valid)
        return _safe_divide((weights * complement**self.gamma * loss).sum(), weights.sum())


class TverskyLoss(SegmentationLoss):
    """One minus the Tversky index, TP / (TP + alpha * FP + beta * FN) (Salehi 2017).

    The counts of each class are sums of probabilities over all pixels of the batch; the loss is the weighted mean over
    the classes that occur in the target. A class that does not occur has an index of 0 whatever is predicted, and so no
    gradient: add a cross entropy to penalize false positives of it.

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
        logits, target, valid = self.read(logits, target)
        probabilities = logits.sigmoid() if self.multilabel else logits.softmax(dim=1)
        true = self._true_pixels(logits, target, valid)
        valid = valid if self.multilabel else valid[:, None]
        tp = (probabilities * true).sum((0, 2, 3))
        predicted, actual = (probabilities * valid).sum((0, 2, 3)), true.sum((0, 2, 3))
        index = _safe_divide(tp, tp + self.alpha * (predicted - tp) + self.beta * (actual - tp))
        weights = (actual > 0).to(index.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights.to(index.dtype)
        return _safe_divide((weights * (1 - index)).sum(), weights.sum())

    def batch_weight(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the weight of a batch in the mean over a data set: that of the classes that occur in each target."""
        logits, target, valid = self.read(logits, target)
        occurs = (self._true_pixels(logits, target, valid) > 0).flatten(2).any(dim=2)
        return (occurs * (1 if self.class_weights is None else self.class_weights.to(logits.dtype))).sum()

    def _true_pixels(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Returns the mask of the pixels of each class `(b, c, h, w)`."""
        if self.multilabel:
            return target
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        return (target[:, None] == classes) & valid[:, None]


class DiceLoss(TverskyLoss):
    """One minus the Dice coefficient: the Tversky loss with `alpha` and `beta` of 0.5 (Milletari 2016).

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
        label_smoothing: See `CrossEntropyLoss`, the only loss that has it.

    Raises:
        ValueError: If a name is unknown, or `label_smoothing` is given without a cross entropy.

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


def _safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Returns `numerator / denominator`, where a denominator of 0 is replaced by 1."""
    return numerator / denominator.where(denominator > 0, torch.ones_like(denominator))
