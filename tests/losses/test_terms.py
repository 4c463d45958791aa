"""The mean of a loss over batches equals the loss of all samples at once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_heads.losses import CrossEntropyLoss, DiceLoss, FocalLoss, SegmentationLoss, WeightedSum
from lightning_heads.losses.terms import loss_terms

WEIGHTS = [1.0, 0.5, 3.0]


class _OwnCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy of a user that takes masks with a channel."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return super().forward(outputs, target[:, 0].long())


class _OwnMean(nn.Module):
    """Squared error of a user, as the mean over the positive targets."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return ((outputs[:, 0] - target).square() * (target > 0)).sum() / self.batch_weight(outputs, target)

    def batch_weight(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (target > 0).sum()


def _mean_over_batches(criterion: nn.Module, outputs: Tensor, target: Tensor, size: int) -> Tensor:
    batches = [loss_terms(criterion, *batch) for batch in zip(outputs.split(size), target.split(size), strict=True)]
    losses, weights = (torch.stack(each) for each in zip(*batches, strict=True))
    return ((losses * weights).nan_to_num().sum(0) / weights.sum(0)).sum()


def _masks() -> Tensor:
    """Masks of eight images, of which one has all of its pixels labeled, one has some, and the others have none."""
    target = torch.randint(3, (8, 6, 7))
    target[2:] = 255
    target[1, 2:] = 255
    return target[torch.randperm(8)]


settings = {"ignore_index": 255, "class_weights": WEIGHTS}
CRITERIA: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": lambda: CrossEntropyLoss(ignore_index=255),
    "weighted": lambda: CrossEntropyLoss(**settings, label_smoothing=0.1),  # type: ignore[arg-type]
    "focal": lambda: FocalLoss(**settings),  # type: ignore[arg-type]
    "sum": lambda: WeightedSum([CrossEntropyLoss(**settings), FocalLoss(ignore_index=255)], [1.0, 0.5]),  # type: ignore[arg-type]
    "torch": lambda: nn.CrossEntropyLoss(torch.tensor(WEIGHTS), ignore_index=255, label_smoothing=0.1),
    "torch_half": lambda: nn.CrossEntropyLoss(torch.tensor(WEIGHTS), ignore_index=255).double(),
    "torch_ignoring": lambda: nn.CrossEntropyLoss(ignore_index=255),
    "torch_nll": lambda: nn.NLLLoss(torch.tensor(WEIGHTS), ignore_index=255),
}


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_mean_over_masks_does_not_depend_on_the_batch_size(criterion: str, size: int) -> None:
    outputs, target, loss = torch.randn(8, 3, 6, 7).double(), _masks(), CRITERIA[criterion]().double()
    torch.testing.assert_close(_mean_over_batches(loss, outputs, target, size), loss(outputs, target))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_labels_of_several_classes_are_weighted_alike(size: int) -> None:
    outputs, target = torch.randn(8, 3, 6, 7), torch.randint(2, (8, 3, 6, 7))
    target[3:, :2] = 255
    for loss in (CrossEntropyLoss, FocalLoss):
        criterion = loss(multilabel=True, **settings)  # type: ignore[arg-type]
        expected = criterion(outputs, target)
        torch.testing.assert_close(_mean_over_batches(criterion, outputs, target, size), expected)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_the_mean_over_classes_does_not_depend_on_the_batch_size(size: int, dtype: torch.dtype) -> None:
    outputs, target = torch.randn(8, 3), torch.tensor([2, 2, 0, 1, 0, 1, 1, 0])
    for criterion in (nn.CrossEntropyLoss(torch.tensor(WEIGHTS)), nn.CrossEntropyLoss(), nn.MultiMarginLoss()):
        torch.testing.assert_close(_mean_over_batches(criterion, outputs, target, size), criterion(outputs, target))
    probabilities = torch.rand(8, 3).softmax(1)  # with weights torch divides by the number of samples
    criterion = nn.CrossEntropyLoss(torch.tensor(WEIGHTS))
    expected = criterion(outputs, probabilities)
    torch.testing.assert_close(_mean_over_batches(criterion, outputs, probabilities, size), expected)
    masks = _masks()[:, None].to(dtype)
    own, maps = _OwnCrossEntropy(torch.tensor(WEIGHTS), ignore_index=255), torch.randn(8, 3, 6, 7)
    torch.testing.assert_close(_mean_over_batches(own, maps, masks, size), own(maps, masks))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_users_loss_may_have_a_weight(size: int) -> None:
    outputs, target = torch.randn(8, 1), torch.tensor([0.0, 2, 0, 3, 1, 0, 0, 0])
    torch.testing.assert_close(_mean_over_batches(_OwnMean(), outputs, target, size), _OwnMean()(outputs, target))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_dice_of_unlabeled_images_does_not_count(size: int) -> None:
    outputs, target = torch.randn(8, 3, 6, 7), _masks()
    labeled = [i for i in range(8) if (target[i] != 255).any()]
    target[labeled[1]] = 255
    loss: SegmentationLoss
    for loss in (DiceLoss(ignore_index=255), DiceLoss(**settings)):  # type: ignore[arg-type]
        torch.testing.assert_close(_mean_over_batches(loss, outputs, target, size), loss(outputs, target))
    # a class that occurs nowhere else has no index elsewhere
    binary = torch.zeros(8, 1, 6, 7)
    binary[5, 0, :2] = 1
    weights = [
        loss_terms(DiceLoss(multilabel=True), x[None, :1], y[None])[1].item()
        for x, y in zip(outputs, binary, strict=True)
    ]
    assert weights == [0, 0, 0, 0, 0, 1, 0, 0]
