"""fastai's ways of training, as phases."""

from collections.abc import Sequence
from dataclasses import replace

from ...optim.freezing import NormPolicy
from ...optim.schedules import Cycle
from .phases import Phases
from .plan import Phase
from .plateau import Plateau


class OneCycle(Phases):
    """Trains everything with one cycle of learning rate and momentum over the whole run: fastai's `fit_one_cycle`.

    Learning rates of the groups are the peaks, so that slices keep their ratios.

    Args:
        pct_start: Fraction of the steps that warm up.
        div: Peak over the first learning rate.
        div_final: Peak over the last learning rate.
        moms: Momentum (the first beta of Adam) at the start, the peak and the end, or None to leave it alone.
        allow_new_plan: See `Phases`.
    """

    def __init__(
        self,
        pct_start: float = 0.25,
        div: float = 25.0,
        div_final: float = 1e5,
        moms: tuple[float, float, float] | None = (0.95, 0.85, 0.95),
        *,
        allow_new_plan: bool = False,
    ) -> None:
        super().__init__([Phase(shape=Cycle(pct_start, div, div_final, moms))], allow_new_plan=allow_new_plan)


class FineTune(Phases):
    """Trains the head first, then everything with low learning rates for early layers: fastai's `fine_tune`.

    The trainer's `max_epochs` counts both phases. With one learning rate it is exactly
    `fine_tune(max_epochs - frozen_epochs, base_lr=lr, freeze_epochs=frozen_epochs)`: the head at `lr`, then, at half of
    it, from `lr / lr_mult` for the first layers to the head. With a pair, or one rate a group, the head alone trains at
    the last of them, then everything at them as they are.

    Args:
        frozen_epochs: Epochs, or a fraction of one, of the head alone; 0 for none.
        lr_mult: Learning rate of the head over that of the first layers in the second phase, where `lr` is one number.
        pct_start: Fraction of the second phase that warms up.
        div: Peak over the first learning rate of the second phase.
        norm: What normalization layers of the frozen encoder do; see `freeze_to`.
        plateau: See `Phases`.
        allow_new_plan: See `Phases`.
    """

    def __init__(
        self,
        frozen_epochs: float = 1.0,
        *,
        lr_mult: float = 100.0,
        pct_start: float = 0.3,
        div: float = 5.0,
        norm: NormPolicy = "train",
        plateau: Plateau | None = None,
        allow_new_plan: bool = False,
    ) -> None:
        if frozen_epochs < 0:
            raise ValueError(f"Expected `frozen_epochs` to be at least 0, but got {frozen_epochs}")
        frozen = [Phase(epochs=frozen_epochs, train_from=-1, shape=Cycle(0.99), norm=norm)] if frozen_epochs else []
        super().__init__([*frozen, Phase(shape=Cycle(pct_start, div))], plateau=plateau, allow_new_plan=allow_new_plan)
        self.lr_mult = lr_mult

    def phases_for(self, rates: list[float]) -> list[Phase]:
        *frozen, whole = self.phases
        top = rates[-1]
        slices = (top / 2 / self.lr_mult, top / 2) if len(set(rates)) == 1 else tuple(rates)
        return [*(replace(phase, lr=(None, top)) for phase in frozen), replace(whole, lr=slices)]


class GradualUnfreeze(Phases):
    """Thaws one parameter group after another from the head on, with lower rates at each stage: ULMFiT (Howard 2018).

    Stages that would go beyond the first group are left out: a model of three groups has three. At each stage, the
    learning rate of each group is that of the group after it divided by `factor`, or as the task's `lr` has them where
    that is not one number. The last stage takes what the others leave of the run.

    Args:
        epochs: Epochs of each stage but the last.
        train_from: First group that trains at each stage; see `Phase`.
        lr_scale: Learning rate of the head at each stage over the task's.
        factor: Learning rate of a group over that of the one before.
        norm: What normalization layers of frozen groups do; see `freeze_to`.
        plateau: See `Phases`.
        allow_new_plan: See `Phases`.
    """

    def __init__(
        self,
        epochs: float = 1.0,
        *,
        train_from: Sequence[int] = (-1, -2, -3, 0),
        lr_scale: Sequence[float] = (1.0, 0.5, 0.25, 0.05),
        factor: float = 2.6,
        norm: NormPolicy = "train",
        plateau: Plateau | None = None,
        allow_new_plan: bool = False,
    ) -> None:
        if not train_from:
            raise ValueError("Expected `train_from` to have a stage, but it is empty")
        if len(lr_scale) != len(train_from):
            raise ValueError(
                f"Expected `lr_scale` to have {len(train_from)} entries, one a stage, but got {len(lr_scale)}"
            )
        last = len(train_from) - 1
        phases = [Phase(epochs if i < last else None, train_from=n, norm=norm) for i, n in enumerate(train_from)]
        super().__init__(phases, plateau=plateau, allow_new_plan=allow_new_plan)
        self.lr_scale = [*lr_scale]
        self.factor = factor

    def phases_for(self, rates: list[float]) -> list[Phase]:
        count = len(rates)
        if len(set(rates)) == 1:
            rates = [rates[-1] / self.factor ** (count - 1 - i) for i in range(count)]
        *stages, last = [
            replace(phase, lr=[rate * scale for rate in rates])
            for phase, scale in zip(self.phases, self.lr_scale, strict=True)
            if count == 1 or phase.train_from > -count
        ]
        return [*stages, replace(last, epochs=None)]
