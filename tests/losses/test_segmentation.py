from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, log_loss
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from lightning_heads.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    SegmentationLoss,
    TverskyLoss,
    WeightedSum,
    segmentation_loss,
)

LOSSES: list[Callable[..., SegmentationLoss]] = [CrossEntropyLoss, DiceLoss, FocalLoss, TverskyLoss]
WEIGHTS = [1.0, 0.5, 3.0]


def _batch(multilabel: bool, classes: int = 3) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(2, classes, 6, 7)
    shape = (2, classes, 6, 7) if multilabel else (2, 6, 7)
    return logits, torch.randint(2 if multilabel else classes, shape)


def _tversky(logits: Tensor, target: Tensor, alpha: float, beta: float, multilabel: bool = False) -> list[float]:
    """Returns the Tversky index of each class, computed with NumPy."""
    x, y, n = logits.double().numpy(), target.numpy(), logits.shape[1]
    p = 1 / (1 + np.exp(-x)) if multilabel else np.exp(x) / np.exp(x).sum(1, keepdims=True)
    indices = []
    for c in range(n):
        true = y[:, c] if multilabel else y == c
        hits = p[:, c][true == 1].sum()
        indices.append(hits / (hits + alpha * p[:, c][true == 0].sum() + beta * (1 - p[:, c])[true == 1].sum()))
    return indices


def test_cross_entropy_equals_scikit_learns_and_torchs() -> None:
    logits, target = _batch(False)
    rows = logits.double().movedim(1, -1).reshape(-1, 3).softmax(1)
    expected = log_loss(target.flatten(), rows, sample_weight=[WEIGHTS[c] for c in target.flatten()])
    assert CrossEntropyLoss(class_weights=WEIGHTS)(logits, target).item() == pytest.approx(expected)
    settings = {"label_smoothing": 0.1, "weight": torch.tensor(WEIGHTS)}
    target[0, :3] = 255
    smooth = F.cross_entropy(logits, target, ignore_index=255, **settings)  # type: ignore[arg-type]
    loss = CrossEntropyLoss(class_weights=WEIGHTS, label_smoothing=0.1, ignore_index=255)
    torch.testing.assert_close(loss(logits, target), smooth)


def test_binary_cross_entropy_equals_torchs() -> None:
    logits, target = _batch(True)
    expected = F.binary_cross_entropy_with_logits(logits, target * 0.9 + 0.05)
    torch.testing.assert_close(CrossEntropyLoss(multilabel=True, label_smoothing=0.1)(logits, target), expected)
    weight = torch.tensor(WEIGHTS)[:, None, None]
    expected = F.binary_cross_entropy_with_logits(logits, target.float(), weight) / weight.mean()
    loss = CrossEntropyLoss(multilabel=True, class_weights=WEIGHTS)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_torchvisions(gamma: float) -> None:
    logits, target = _batch(True)
    expected = sigmoid_focal_loss(logits, target.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(FocalLoss(multilabel=True, gamma=gamma)(logits, target), expected)
    # two classes by softmax are one by the sigmoid of their difference
    two, target = logits[:, :2], target[:, 0]
    expected = sigmoid_focal_loss(two[:, 1] - two[:, 0], target.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(FocalLoss(gamma=gamma)(two, target), expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_focal_without_gamma_is_the_cross_entropy(multilabel: bool) -> None:
    settings = {"multilabel": multilabel, "ignore_index": 1, "class_weights": WEIGHTS}
    focal, cross_entropy = FocalLoss(gamma=0.0, **settings), CrossEntropyLoss(**settings)  # type: ignore[arg-type]
    logits, target = _batch(multilabel)
    torch.testing.assert_close(focal(logits, target), cross_entropy(logits, target))


def test_focal_has_a_finite_gradient_where_the_prediction_is_certain() -> None:
    logits = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
    FocalLoss(gamma=0.5)(logits, torch.zeros(1, 1, 1)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("multilabel", [False, True])
def test_tversky_equals_the_index_computed_with_numpy(multilabel: bool) -> None:
    logits, target = _batch(multilabel)
    indices = _tversky(logits, target, 0.2, 0.9, multilabel)
    loss = TverskyLoss(multilabel=multilabel, alpha=0.2, beta=0.9)(logits, target)
    assert loss.item() == pytest.approx(1 - np.mean(indices), rel=1e-5)
    weighted = TverskyLoss(multilabel=multilabel, alpha=0.2, beta=0.9, class_weights=WEIGHTS)(logits, target)
    assert weighted.item() == pytest.approx(1 - np.average(indices, weights=WEIGHTS), rel=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_dice_of_sure_predictions_is_scikit_learns_f1(multilabel: bool) -> None:
    logits, target = _batch(multilabel)
    answers = logits > 0 if multilabel else F.one_hot(logits.argmax(1), 3).movedim(-1, 1)
    true = target if multilabel else F.one_hot(target, 3).movedim(-1, 1)
    rows = [x.long().movedim(1, -1).reshape(-1, 3) for x in (true, answers)]
    loss = DiceLoss(multilabel=multilabel)((answers * 2.0 - 1) * 100, target)
    assert loss.item() == pytest.approx(1 - f1_score(*rows, average="macro"), rel=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_region_losses_equal_segmentation_models_pytorchs(multilabel: bool) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    logits, target = _batch(multilabel)
    mode, settings = "multilabel" if multilabel else "multiclass", {"multilabel": multilabel, "ignore_index": 255}
    target[0, ..., :3, :] = 255
    theirs = {"ignore_index": 255, "mode": mode}
    for ours, expected in (
        (DiceLoss(**settings), smp.DiceLoss(**theirs)),  # type: ignore[arg-type]
        (TverskyLoss(alpha=0.2, beta=0.9, **settings), smp.TverskyLoss(alpha=0.2, beta=0.9, **theirs)),  # type: ignore[arg-type]
    ):
        torch.testing.assert_close(ours(logits, target), expected(logits, target))


@pytest.mark.parametrize("kind", [DiceLoss, TverskyLoss])
def test_absent_classes_are_left_out_of_the_mean(kind: type[TverskyLoss]) -> None:
    logits, target = _batch(False, classes=5)
    target = target.clamp(max=2)
    loss = kind()
    expected = 1 - np.mean(_tversky(logits, target, loss.alpha, loss.beta)[:3])
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)
    empty = logits.requires_grad_()
    total = kind(multilabel=True)(empty, torch.zeros(2, 5, 6, 7))
    total.backward()
    assert total.item() == 0
    assert not empty.grad.any()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("value", [255, -1, 0])
@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_pixels_equal_removed_pixels(
    kind: Callable[..., SegmentationLoss], value: int, weights: list[float] | None
) -> None:
    logits, target = _batch(False)
    target[:, 1:4, 2:5] = value
    kept = target != value
    rows = logits.movedim(1, -1)[kept].T[None, :, None]
    expected = kind(class_weights=weights)(rows, target[kept][None, None])
    logits.requires_grad_()
    loss = kind(class_weights=weights, ignore_index=value)(logits, target)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not logits.grad.movedim(1, -1)[~kept].any()
    assert logits.grad.movedim(1, -1)[kept].any(-1).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_labels_equal_removed_labels(kind: Callable[..., SegmentationLoss]) -> None:
    logits, target = _batch(True, classes=1)
    target[:, :, 1:4, 2:5] = 255
    kept = target != 255
    expected = kind(multilabel=True)(logits[kept].view(1, 1, 1, -1), target[kept].view(1, 1, 1, -1))
    torch.testing.assert_close(kind(multilabel=True, ignore_index=255)(logits, target), expected)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_loss_is_zero_if_all_pixels_are_ignored(kind: Callable[..., SegmentationLoss], multilabel: bool) -> None:
    logits, target = _batch(multilabel)
    logits.requires_grad_()
    settings = {"class_weights": WEIGHTS} if multilabel else {}
    loss = kind(multilabel=multilabel, ignore_index=255, **settings)(logits, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("kind", LOSSES)
def test_masks_may_have_any_integer_dtype(kind: Callable[..., SegmentationLoss], dtype: torch.dtype) -> None:
    logits, target = _batch(False)
    target[:, 0] = 255
    loss = kind(ignore_index=255)
    torch.testing.assert_close(loss(logits, target.to(dtype)), loss(logits, target))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_single_label_needs_no_channel(kind: Callable[..., SegmentationLoss]) -> None:
    logits, target = _batch(True, classes=1)
    loss = kind(multilabel=True)
    assert torch.equal(loss(logits, target[:, 0]), loss(logits, target))


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_pass_gradcheck(kind: Callable[..., SegmentationLoss], multilabel: bool) -> None:
    logits, target = _batch(multilabel)
    target[:, 0] = 9
    loss = kind(multilabel=multilabel, ignore_index=9, class_weights=WEIGHTS)
    few = logits[:1, :, :2, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target[:1, ..., :2, :3]), few)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_is_summed_in_float32(
    kind: Callable[..., SegmentationLoss], dtype: torch.dtype, multilabel: bool
) -> None:
    # more pixels than the largest float16
    logits = torch.randn(1, 2, 512, 512).to(dtype)
    target = torch.randint(2, (1, 2, 512, 512) if multilabel else (1, 512, 512))
    loss = kind(multilabel=multilabel, class_weights=[1.0, 2.0])
    expected = loss(logits.double(), target)
    for module in (loss, loss.half()):
        with torch.autocast("cpu", torch.bfloat16):
            result = module(logits.requires_grad_(), target)
        torch.testing.assert_close(result, expected.float(), rtol=1e-5, atol=0)
    result.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_weighted_sum_adds_up() -> None:
    logits, target = _batch(False)
    target[0, 0] = 255
    settings = {"ignore_index": 255, "class_weights": WEIGHTS}
    both = segmentation_loss({"cross_entropy": 1.0, "dice": 0.5}, label_smoothing=0.1, **settings)  # type: ignore[arg-type]
    cross_entropy = CrossEntropyLoss(label_smoothing=0.1, **settings)(logits, target)  # type: ignore[arg-type]
    dice = DiceLoss(**settings)(logits, target)  # type: ignore[arg-type]
    torch.testing.assert_close(both(logits, target), cross_entropy + 0.5 * dice)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cross_entropy", CrossEntropyLoss), ("dice", DiceLoss), ("focal", FocalLoss), ("tversky", TverskyLoss)],
)
def test_losses_are_built_by_name(name: str, kind: type[nn.Module]) -> None:
    loss = segmentation_loss(name, multilabel=True, ignore_index=7, class_weights=WEIGHTS)  # type: ignore[arg-type]
    assert type(loss) is kind
    assert (loss.multilabel, loss.ignore_index, loss.class_weights.tolist()) == (True, 7, WEIGHTS)
    assert not loss.state_dict()


def test_a_loss_compiles_to_one_graph() -> None:
    loss = segmentation_loss(dict.fromkeys(("cross_entropy", "dice", "focal", "tversky"), 1.0), ignore_index=2)
    logits, target = _batch(False)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: segmentation_loss("iou"), "`loss` to be of cross_entropy, dice, focal, tversky, but got 'iou'"),
        (lambda: segmentation_loss({}), r"`loss` to be of cross_entropy, dice, focal, tversky, but got \{\}"),
        (lambda: segmentation_loss("dice", label_smoothing=0.1), "`label_smoothing` with cross_entropy, but `loss` is"),
        (lambda: CrossEntropyLoss(label_smoothing=2), r"`label_smoothing` in \[0, 1\], but got 2"),
        (lambda: FocalLoss(gamma=-1), "`gamma` to be at least 0, but got -1"),
        (lambda: TverskyLoss(alpha=-1), "`alpha` and `beta` to be at least 0, but got -1 and 0.7"),
        (lambda: DiceLoss(class_weights=[1.0]), r"`class_weights` to be at least two numbers from 0, .* got \[1.0\]"),
        (lambda: DiceLoss(class_weights=[1, -1]), r"`class_weights` to be at least two numbers from 0, .* \[1, -1\]"),
        (lambda: WeightedSum([DiceLoss()], []), "`weights` to have 1 entries, one a loss, but got 0"),
    ],
)
def test_wrong_settings_are_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("multilabel", "shape", "expected"),
    [
        (False, (2, 1, 6, 7), "(2, 6, 7)"),
        (False, (2, 3, 6, 7), "(2, 6, 7)"),
        (False, (2, 6, 1), "(2, 6, 7)"),
        (True, (2, 6, 7), "(2, 3, 6, 7)"),
        (True, (2, 1, 6, 7), "(2, 3, 6, 7)"),
    ],
)
@pytest.mark.parametrize("kind", LOSSES)
def test_targets_of_another_shape_are_refused(
    kind: Callable[..., SegmentationLoss], multilabel: bool, shape: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the full text is compared below
        kind(multilabel=multilabel)(_batch(multilabel)[0], torch.zeros(shape, dtype=torch.long))
    assert str(error.value) == f"Expected a target of {expected} for logits of (2, 3, 6, 7), but got {shape}"
