"""MixUp and CutMix of training batches."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class MixUpCutMix(L.Callback):
    """Applies torchvision's MixUp or CutMix to training batches.

    MixUp blends two images (Zhang 2018, "mixup: Beyond Empirical Risk Minimization"), CutMix pastes a box of one into
    the other (Yun 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features"). Each
    sample is mixed with the previous one of its batch. The mixing weight is drawn once per batch from
    Beta(alpha, alpha); if both alphas are above 0, each batch uses one of the two methods at random.

    Images are float `(b, c, h, w)`. Targets that are averaged with the mixing weight: class indices `(b,)`, which
    become probabilities `(b, num_classes)`; any `(b, k)`, that is probabilities, multi-label targets or numbers; and
    float `(b,)`. Dense targets, `(b, h, w)` or `(b, k, h, w)`, are mixed like the images: CutMix uses the same box for
    masks, and MixUp needs float targets. A pixel blended with one of the task's `ignore_index` becomes `ignore_index`.

    Args:
        mixup_alpha: Alpha of MixUp's Beta distribution; 0 disables MixUp.
        cutmix_alpha: Alpha of CutMix's Beta distribution; 0 disables CutMix.
        p: Probability that a batch is mixed at all.
        num_classes: Number of classes of class indices; by default the number of the task's `class_names`.

    Raises:
        TypeError: If a batch is not a list of two tensors, as torch collates images and targets.
        ValueError: If the model has several inputs, or images or targets cannot be mixed.

    >>> batch = [torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])]
    >>> MixUpCutMix(num_classes=3).on_train_batch_start(L.Trainer(logger=False), L.LightningModule(), batch, 0)
    >>> batch[1].shape
    torch.Size([4, 3])
    """

    in_lr_find = True  # the learning rate finder mixes batches too

    def __init__(
        self, mixup_alpha: float = 0.4, cutmix_alpha: float = 0.0, *, p: float = 1.0, num_classes: int | None = None
    ) -> None:
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not alpha >= 0:
                raise ValueError(f"Expected `{name}` to be at least 0, but got {alpha}")
        if mixup_alpha == cutmix_alpha == 0:
            raise ValueError("Expected `mixup_alpha` or `cutmix_alpha` above 0, but both are 0")
        if not 0 <= p <= 1:
            raise ValueError(f"Expected `p` in [0, 1], but got {p}")
        self.mixup_alpha, self.cutmix_alpha = float(mixup_alpha), float(cutmix_alpha)
        self.p = p
        self.num_classes = num_classes

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Replaces images and target in the list that is passed to `training_step`."""
        self._check(pl_module, batch)
        if self.p < 1 and float(torch.rand(())) >= self.p:
            return
        images, target = batch[:2]
        if target.ndim > 2:
            batch[:2] = self._mix_pixels(images, target, getattr(pl_module, "ignore_index", None))
        elif target.ndim == 2:
            batch[:2] = self._transform()(images, target)
        elif target.is_floating_point():
            mixed, column = self._transform()(images, target[:, None])
            batch[:2] = mixed, column[:, 0]
        else:
            batch[:2] = self._transform(self._classes(pl_module))(images, target.long())
        if not target.is_floating_point() and target.ndim <= 2:
            # torchvision returns float32, but a loss in double or half precision needs the dtype of the images
            batch[1] = batch[1].to(images.dtype)

    def _check(self, pl_module: L.LightningModule, batch: Any) -> None:
        inputs = getattr(getattr(pl_module, "model", None), "num_inputs", 1)
        if inputs > 1:
            raise ValueError(f"Expected a model with one input, which is mixed with its target, but it has {inputs}")
        if not isinstance(batch, list):
            raise TypeError(f"Expected a batch to be a list, which is changed in place, but got {type(batch).__name__}")
        if len(batch) < 2:
            raise ValueError("Expected a batch of images, then the target, but there is no target")
        images, target = batch[:2]
        if not isinstance(images, Tensor) or not isinstance(target, Tensor):
            kinds = f"{type(images).__name__} and {type(target).__name__}"
            raise TypeError(f"Expected a batch's images and target to be tensors, but got {kinds}")
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(f"Expected float images (b, c, h, w), but got {images.dtype} of {tuple(images.shape)}")
        if self.mixup_alpha and target.ndim > 2 and not target.is_floating_point():
            raise ValueError(
                "Expected `mixup_alpha` to be 0 and `cutmix_alpha` above 0 for masks, as integers cannot be blended, "
                f"but `mixup_alpha` is {self.mixup_alpha}"
            )

    def _transform(self, num_classes: int | None = None) -> v2.Transform:
        mixup = v2.MixUp(alpha=self.mixup_alpha, num_classes=num_classes) if self.mixup_alpha else None
        cutmix = v2.CutMix(alpha=self.cutmix_alpha, num_classes=num_classes) if self.cutmix_alpha else None
        if mixup and cutmix:
            return mixup if float(torch.rand(())) < 0.5 else cutmix
        return mixup or cutmix

    def _mix_pixels(self, images: Tensor, target: Tensor, ignore: int | None) -> tuple[Tensor, Tensor]:
        """Mixes dense targets like images, in their own dtype; pixels blended with `ignore` become `ignore`."""
        maps = target[:, None] if target.ndim == 3 else target
        ignored = torch.zeros_like(maps, dtype=torch.float32) if ignore is None else (maps == ignore).float()
        labels = images.new_zeros(len(images), 1)  # torchvision requires labels
        mixed, _, maps, ignored = self._transform()(
            tv_tensors.Image(images), labels, tv_tensors.Image(maps), tv_tensors.Image(ignored)
        )
        maps = maps.as_subclass(Tensor)
        if ignore is not None and maps.is_floating_point():  # integers are cut, not blended
            maps = maps.masked_fill(ignored.as_subclass(Tensor) > 0, ignore)
        return mixed.as_subclass(Tensor), maps.view(target.shape)

    def _classes(self, pl_module: L.LightningModule) -> int:
        if self.num_classes is not None:
            return self.num_classes
        names = getattr(pl_module, "class_names", None)
        if not names:
            raise ValueError("Expected `num_classes`, as targets are class indices and the task has no `class_names`")
        return len(names)
