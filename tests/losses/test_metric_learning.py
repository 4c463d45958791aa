from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_heads.losses.metric_learning import ContrastiveLoss, NTXentLoss, TripletLoss

Loss = Callable[[Tensor, Tensor], Tensor]


def _batch_hard(margin: float) -> Loss:
    loss, miner = losses.TripletMarginLoss(margin=margin), miners.BatchHardMiner()
    return lambda embeddings, labels: loss(embeddings, labels, miner(embeddings, labels))


CASES: dict[str, tuple[nn.Module, Loss]] = {
    "contrastive": (ContrastiveLoss(), losses.ContrastiveLoss()),
    "contrastive_margins": (ContrastiveLoss(0.9, 1.3), losses.ContrastiveLoss(pos_margin=0.9, neg_margin=1.3)),
    "triplet": (TripletLoss(), _batch_hard(0.2)),
    "triplet_margin": (TripletLoss(1.0), _batch_hard(1.0)),
    "nt_xent": (NTXentLoss(), losses.NTXentLoss()),
    "nt_xent_temperature": (NTXentLoss(0.5), losses.NTXentLoss(temperature=0.5)),
}
LABELS = {
    "classes": torch.arange(24) % 4,
    "uneven": torch.tensor([0] * 9 + [1] * 5 + [2] * 2 + [7]),
    "singletons": torch.tensor([3, 0, 1, 0, 2, 5, 1, 4]),
    "pair": torch.tensor([0, 0, 1]),
    "large": torch.arange(60) % 13,
}
NO_PAIR = {"one_class": torch.zeros(6).long(), "all_alone": torch.arange(6), "one_image": torch.tensor([2])}


def _value_and_gradient(loss: Any, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    embeddings = embeddings.clone().requires_grad_()
    with torch.autograd.set_detect_anomaly(True):  # no operation of the backward pass may return NaN
        value = loss(embeddings, labels)
        (gradient,) = torch.autograd.grad(value, embeddings)
    return value.detach(), gradient


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("labels", LABELS.values(), ids=[*LABELS])
@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=[*CASES])
def test_losses_equal_pytorch_metric_learning(ours: nn.Module, theirs: Loss, labels: Tensor, clustered: bool) -> None:
    for _ in range(5):
        embeddings = torch.randn(len(labels), 8) * torch.rand(len(labels), 1) * 3
        if clustered:  # so that some pairs satisfy the margins
            embeddings += 3 * torch.randn(13, 8)[labels]
        value, gradient = _value_and_gradient(ours, embeddings.double(), labels)
        expected, expected_gradient = _value_and_gradient(theirs, embeddings.double(), labels)
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-6)
        single, single_gradient = _value_and_gradient(ours, embeddings, labels)
        torch.testing.assert_close(single, value.float(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(single_gradient, gradient.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("labels", NO_PAIR.values(), ids=[*NO_PAIR])
@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=[*CASES])
def test_a_batch_without_a_pair_has_no_loss_and_no_gradient(ours: nn.Module, theirs: Loss, labels: Tensor) -> None:
    embeddings = torch.randn(len(labels), 8)
    value, gradient = _value_and_gradient(ours, embeddings, labels)
    expected, expected_gradient = _value_and_gradient(theirs, embeddings, labels)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)
    if not isinstance(ours, ContrastiveLoss) or len(labels) == 1:  # contrastive loss is nonzero with pairs of one kind
        assert value == 0
        assert (gradient == 0).all()


@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=[*CASES])
def test_equal_embeddings_have_finite_gradients(ours: nn.Module, theirs: Loss) -> None:
    embeddings = torch.randn(2, 8).repeat(4, 1).double()
    labels = torch.tensor([0, 0, 1, 1, 0, 1, 2, 2])
    value, gradient = _value_and_gradient(ours, embeddings, labels)
    expected, _ = _value_and_gradient(theirs, embeddings, labels)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    assert gradient.isfinite().all()
    assert _value_and_gradient(ours, torch.zeros(8, 8), labels)[1].isfinite().all()


@pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=[*CASES])
def test_low_precision_is_computed_in_float32(ours: nn.Module, theirs: Loss) -> None:
    embeddings, labels = torch.randn(16, 8), torch.arange(16) % 3
    with torch.autocast("cpu", torch.bfloat16):
        value = ours(embeddings, labels)
    torch.testing.assert_close(value, ours(embeddings, labels), atol=0, rtol=0)
    half = embeddings.half()
    torch.testing.assert_close(ours(half, labels), ours(half.float(), labels), atol=0, rtol=0)


class _LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returns, also in the backward pass."""

    size = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.size = max(self.size, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)), 0)
        return result


@pytest.mark.parametrize("loss", [ContrastiveLoss(), TripletLoss(), NTXentLoss()])
def test_no_tensor_is_larger_than_the_matrix_of_pairs(loss: nn.Module) -> None:
    embeddings, labels = torch.randn(48, 32, requires_grad=True), torch.arange(48) % 6
    with _LargestTensor() as largest:
        loss(embeddings, labels).backward()
    assert embeddings.grad is not None
    assert largest.size == 48 * 48


@pytest.mark.parametrize("loss", [ContrastiveLoss(0.1, 1.5), TripletLoss()])
def test_derivatives_pass_gradcheck(loss: nn.Module) -> None:
    embeddings, labels = torch.randn(6, 3).double().requires_grad_(), torch.arange(6) % 2
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), embeddings)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, labels), embeddings)


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
@pytest.mark.parametrize("loss", [ContrastiveLoss(), TripletLoss()])
def test_close_embeddings_are_as_precise_as_their_differences(loss: nn.Module, spread: float) -> None:
    """In float32, with the distances as differences of unit vectors, that need memory of (b, b, d)."""
    labels = torch.arange(24) % 4
    embeddings = torch.nn.functional.normalize(torch.randn(16) + spread * torch.randn(24, 16), dim=1)

    def by_differences(x: Tensor, labels: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(x, dim=1)
        distances = torch.linalg.vector_norm(unit[:, None] - unit, dim=-1)
        different = labels[:, None] != labels
        same = ~different & ~torch.eye(24, dtype=torch.bool)
        if isinstance(loss, ContrastiveLoss):
            return distances[same].mean() + (1 - distances)[different].mean()
        hardest = distances.masked_fill(~same, 0).amax(1) - distances.masked_fill(~different, torch.inf).amin(1)
        return (hardest + 0.2).mean()

    value, gradient = _value_and_gradient(loss, embeddings, labels)
    expected, expected_gradient = _value_and_gradient(by_differences, embeddings, labels)
    torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("embeddings", "labels", "given"),
    [
        (torch.randn(4, 2, 2), torch.arange(4), r"\(4, 2, 2\) and torch.int64 of \(4,\)"),
        (torch.randn(4, 2), torch.arange(3), r"\(4, 2\) and torch.int64 of \(3,\)"),
        (torch.randn(4, 2), torch.rand(4, 3), r"\(4, 2\) and torch.float32 of \(4, 3\)"),
        (torch.randn(4, 2), torch.rand(4), r"\(4, 2\) and torch.float32 of \(4,\)"),
    ],
)
def test_other_shapes_are_refused(embeddings: Tensor, labels: Tensor, given: str) -> None:
    with pytest.raises(ValueError, match=r"embeddings \(b, d\) and class indices \(b,\), but got " + given):
        TripletLoss()(embeddings, labels)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="`margin` to be at least 0, but got -1"):
        TripletLoss(-1)
    with pytest.raises(ValueError, match=r"at least 0, but got 0\.0 and -0\.5"):
        ContrastiveLoss(negative_margin=-0.5)
    with pytest.raises(ValueError, match="`temperature` to be above 0, but got 0"):
        NTXentLoss(0)
