from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.callbacks.mixup import MixUpCutMix

ONE = {"mixup": {"mixup_alpha": 0.4}, "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}}
ORACLE = {"mixup": lambda n: v2.MixUp(alpha=0.4, num_classes=n), "cutmix": lambda n: v2.CutMix(num_classes=n)}


def _mix(callback: MixUpCutMix, images: Tensor, target: Tensor, seed: int = 0, **task: object) -> tuple[Tensor, Tensor]:
    batch = [images, target]
    torch.manual_seed(seed)
    callback.on_train_batch_start(None, SimpleNamespace(**task), batch, 0)  # type: ignore[arg-type]
    return batch[0], batch[1]


def _targets() -> dict[str, Tensor]:
    return {
        "classes": torch.tensor([0, 2, 1, 2]),
        "int32": torch.tensor([0, 2, 1, 2], dtype=torch.int32),
        "probabilities": torch.rand(4, 3).softmax(1),
        "labels": torch.randint(2, (4, 5)),
        "numbers": torch.randn(4, 2) * 100,
    }


@pytest.mark.parametrize("kind", [*_targets()])
@pytest.mark.parametrize("name", [*ONE])
def test_equals_torchvision_under_the_same_seed(name: str, kind: str) -> None:
    images, target = torch.rand(4, 3, 9, 7), _targets()[kind]
    kept = images.clone(), target.clone()
    for seed in range(3):
        mixed = _mix(MixUpCutMix(**ONE[name]), images, target, seed, class_names=["a", "b", "c"])
        torch.manual_seed(seed)
        oracle = ORACLE[name](3 if target.ndim == 1 else None)(images, target.long() if kind == "int32" else target)
        torch.testing.assert_close(mixed, oracle, atol=0, rtol=0)
    torch.testing.assert_close((images, target), kept, atol=0, rtol=0)


@pytest.mark.parametrize("name", [*ONE])
def test_one_number_per_image_is_mixed_like_one_column(name: str) -> None:
    images, target = torch.rand(4, 3, 8, 8), torch.randn(4)
    mixed = _mix(MixUpCutMix(**ONE[name]), images, target)
    torch.manual_seed(0)
    oracle = ORACLE[name](None)(images, target[:, None])
    torch.testing.assert_close(mixed, (oracle[0], oracle[1].flatten()), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_class_probabilities_have_the_images_dtype(dtype: torch.dtype) -> None:
    images, target = _mix(MixUpCutMix(num_classes=3), torch.rand(4, 3, 8, 8, dtype=dtype), torch.tensor([0, 1, 2, 0]))
    assert images.dtype == target.dtype == dtype
    torch.testing.assert_close(target.double().sum(1), torch.ones(4).double(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("images", [torch.float32, torch.float16])
@pytest.mark.parametrize("mask", [torch.uint8, torch.int64, torch.bool])
def test_masks_are_cut_with_the_same_box_as_their_images(images: torch.dtype, mask: torch.dtype) -> None:
    masks = torch.randint(2 if mask == torch.bool else 200, (4, 9, 7)).to(mask)
    source = torch.rand(4, 3, 9, 7).to(images)
    source[:, 0] = masks.to(images)
    sizes = set()
    for seed in range(5):
        mixed, target = _mix(MixUpCutMix(0, 1.0), source, masks, seed)
        torch.manual_seed(seed)
        assert torch.equal(mixed, v2.CutMix()(source, torch.zeros(4, 1))[0])
        assert (mixed.dtype, target.dtype, target.shape) == (images, mask, masks.shape)
        assert torch.equal(mixed[:, 0], target.to(images))
        sizes.add(int((target != masks).sum()))
    assert len(sizes) > 2


def test_large_mask_values_stay_exact() -> None:
    masks = 2**40 + torch.arange(4 * 64).view(4, 8, 8)
    _, target = _mix(MixUpCutMix(0, 1.0), torch.rand(4, 3, 8, 8).half(), masks)
    assert ((target == masks) | (target == masks.roll(1, 0))).all()
    assert not torch.equal(target, masks)


def test_target_images_are_blended_like_the_images() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed, target = _mix(MixUpCutMix(), images, images[:, :2] * 2)
    torch.testing.assert_close(target, mixed[:, :2] * 2)
    assert not torch.equal(mixed, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_blended_with_ignored_ones_are_ignored(dtype: torch.dtype) -> None:
    labels = torch.randint(2, (4, 2, 8, 8)).to(dtype)
    masks = labels.masked_fill(torch.rand(4, 2, 8, 8) < 0.2, 255)
    for seed in range(5):
        _, target = _mix(MixUpCutMix(), torch.rand(4, 3, 8, 8), masks, seed, ignore_index=255)
        _, clean = _mix(MixUpCutMix(), torch.rand(4, 3, 8, 8), labels, seed)
        ignored = (masks == 255) | (masks.roll(1, 0) == 255)
        assert torch.equal(target, torch.where(ignored, 255, clean))
        assert target.dtype == dtype
    assert 0 < ignored.float().mean() < 1


@pytest.mark.parametrize(("ignore", "dtype"), [(255, torch.float32), (-100, torch.uint8), (255, torch.uint8)])
def test_ignored_pixels_are_cut_like_others(ignore: int, dtype: torch.dtype) -> None:
    masks = torch.randint(2, (4, 8, 8)).masked_fill(torch.rand(4, 8, 8) < 0.2, ignore % 256).to(dtype)
    _, target = _mix(MixUpCutMix(0, 1.0), torch.rand(4, 3, 8, 8), masks, ignore_index=ignore)
    _, expected = _mix(MixUpCutMix(0, 1.0), torch.rand(4, 3, 8, 8), masks)
    assert torch.equal(target, expected)
    assert not torch.equal(target, masks)


def test_ignored_pixels_of_mixed_masks_stay_ignored_by_the_loss() -> None:
    task = lh.ImageSegmenter("test_resnet", 1, pretrained=False, ignore_index=255, loss="dice")
    masks = torch.zeros(4, 1, 32, 32)
    masks[:2, ..., :16] = 255
    batch = [torch.rand(4, 3, 32, 32), masks]
    MixUpCutMix().on_train_batch_start(L.Trainer(logger=False), task, batch, 0)
    task.check_target(task(batch[0]), batch[1])  # raises an error for values that are neither in 0..1 nor ignored
    kept = batch[1] != 255
    assert kept.float().mean(dim=(1, 2, 3)).tolist() == [0.5, 0.5, 0.5, 1.0]


def test_each_batch_uses_mixup_or_cutmix() -> None:
    images, target = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    callback = MixUpCutMix(1.0, 1.0, num_classes=2)
    cut = 0
    for seed in range(200):
        mixed, _ = _mix(callback, images, target, seed)
        cut += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 75 < cut < 125


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0, 0), (0.3, 35, 85), (1.0, 200, 200)])
def test_p_is_the_probability_of_mixing(p: float, low: int, high: int) -> None:
    images, target = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    callback = MixUpCutMix(1.0, p=p, num_classes=2)
    mixed = sum(_mix(callback, images, target, seed)[1].ndim == 2 for seed in range(200))
    assert low <= mixed <= high


def test_one_image_is_mixed_with_itself() -> None:
    images, target = torch.rand(1, 3, 8, 8), torch.tensor([1])
    mixed, probabilities = _mix(MixUpCutMix(1.0, 1.0, num_classes=3), images, target)
    torch.testing.assert_close(mixed, images)
    torch.testing.assert_close(probabilities, torch.tensor([[0.0, 1.0, 0.0]]))


class _Seen(L.Callback):
    def __init__(self) -> None:
        self.train: list[Tensor] = []
        self.val: list[Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.train.append(batch[1])

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.val.append(batch[1])


def test_mixes_training_batches_only(tmp_path: Path) -> None:
    batches = [[torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])] for _ in range(2)]
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    seen = _Seen()
    task = lh.ImageClassifier("test_resnet", 3, pretrained=False)
    steps: list[Tensor] = []
    task.criterion.register_forward_pre_hook(lambda _, args: steps.append(args[1]))
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[MixUpCutMix(1.0, 1.0), seen],
    )
    trainer.fit(task, loader, loader)
    assert [target.shape for target in seen.train] == [(4, 3)] * 4
    assert [target.shape for target in seen.val] == [(4,)] * 4
    assert [target.ndim for target in steps] == [2, 2, 1, 1] * 2
    assert batches[0][1].tolist() == [0, 1, 2, 0]  # the batches of the data set are unchanged
    assert trainer.callback_metrics["train_loss"].isfinite()


def test_integer_labels_train_a_multilabel_task(tmp_path: Path) -> None:
    task = lh.ImageClassifier("test_resnet", 2, multilabel=True, pretrained=False)
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 32, 32), torch.randint(2, (8, 2))), 4)
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[MixUpCutMix()],
    )
    trainer.fit(task, loader)
    assert trainer.callback_metrics["train_loss"].isfinite()


IMAGES = torch.rand(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((IMAGES, torch.tensor([0, 1])), TypeError, "a list, which is changed in place, but got tuple"),
        ([[IMAGES, torch.tensor([0, 1])], 0], TypeError, "images and target to be tensors, but got list and int"),
        ([IMAGES], ValueError, "there is no target"),
        ([torch.rand(2, 3), torch.tensor([0, 1])], ValueError, r"float images \(b, c, h, w\), but got torch.float32"),
        ([(IMAGES * 255).byte(), torch.tensor([0, 1])], ValueError, "float images .* got torch.uint8"),
        ([IMAGES, torch.zeros(2, 8, 8).long()], ValueError, "`mixup_alpha` to be 0 .* for masks.* is 0.4"),
        ([IMAGES, torch.tensor([0, 1])], ValueError, "`num_classes`, as targets are class indices"),
    ],
)
def test_batches_that_cannot_be_mixed_are_refused(batch: object, error: type[Exception], message: str) -> None:
    task = lh.TransferModule(nn.Identity(), nn.CrossEntropyLoss())
    with pytest.raises(error, match=message):
        MixUpCutMix().on_train_batch_start(None, task, batch, 0)  # type: ignore[arg-type]


def test_a_model_of_two_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a model with one input, .* it has 2"):
        _mix(MixUpCutMix(), IMAGES, torch.tensor([0, 1]), model=SimpleNamespace(num_inputs=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 2}, r"`p` in \[0, 1\], but got 2"),
        ({"mixup_alpha": -0.1}, "`mixup_alpha` to be at least 0, but got -0.1"),
        ({"cutmix_alpha": float("nan")}, "`cutmix_alpha` to be at least 0, but got nan"),
        ({"mixup_alpha": 0}, "`mixup_alpha` or `cutmix_alpha` above 0, but both are 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixUpCutMix(**settings)
