"""fastai's training schedules as phases: one-cycle, fine-tuning and gradual unfreezing."""

from collections.abc import Sequence
from dataclasses import replace

from ...optim.freezing import NormPolicy
from ...optim.schedules import Cycle
from .phases import Phases
from .plan import Phase
from .plateau import Plateau


class OneCycle(Phases):
    """Trains all groups with one cycle of learning rate and momentum over the whole run: fastai's `fit_one_cycle`.

    The learning rates of the groups are the peaks of the cycle, so that their ratios stay the same.

    Args:
        pct_start: Fraction of the steps used for warm-up.
        div: Peak learning rate divided by the first.
        div_final: Peak learning rate divided by the last.
        moms: Momentum (the first beta of Adam) at the start, the peak and the end, or None to leave it unchanged.
        allow_new_plan: Whether a resumed run may have other phases, learning rates or another length than its
            checkpoint. By default that is an error.
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
    """Trains the head alone, then all groups with lower learning rates for early layers: fastai's `fine_tune`.

    The trainer's `max_epochs` counts both phases. With a single learning rate, the schedule is exactly
    `fine_tune(max_epochs - frozen_epochs, base_lr=lr, freeze_epochs=frozen_epochs)`: the head trains at `lr`, then the
    groups train at rates from `lr / 2 / lr_mult` (first group) to `lr / 2` (head). With a pair, or one learning rate a
    group, the head alone trains at the last rate, then every group at its own.

    Args:
        frozen_epochs: Length in epochs, or a fraction of one, of the phase that trains the head alone; 0 for none.
        lr_mult: Learning rate of the head over that of the first group in the second phase, if `lr` is one number.
        pct_start: Fraction of the second phase used for warm-up.
        div: Peak learning rate of the second phase divided by its first.
        norm: What normalization layers of the frozen encoder do: `train` trains them, `stats` only updates their
            running statistics, `eval` fixes both and disables dropout; see `freeze_to`.
        plateau: Ends a phase early when a monitored metric stops improving; see `Phases`.
        allow_new_plan: Whether a resumed run may have other phases, learning rates or another length than its
            checkpoint. By default that is an error.
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
        *frozen, unfrozen = self.phases
        top = rates[-1]
        slices = (top / 2 / self.lr_mult, top / 2) if len(set(rates)) == 1 else tuple(rates)
        return [*(replace(phase, lr=(None, top)) for phase in frozen), replace(unfrozen, lr=slices)]


class GradualUnfreeze(Phases):
    """Unfreezes one parameter group after another, starting at the head, with lower learning rates at each stage.

    This is ULMFiT's gradual unfreezing (Howard 2018). Stages beyond the first group are left out: a model of three
    groups has three. At each stage, the learning rate of each group is that of the next group divided by `factor`, or,
    if the task's `lr` is not one number, the task's rate of that group; both are multiplied by `lr_scale`. The last
    stage takes the steps that the others leave.

    Args:
        epochs: Length of each stage but the last, in epochs.
        train_from: First group that trains at each stage; negative numbers count from the end.
        lr_scale: Factor by which the learning rates are multiplied at each stage.
        factor: Learning rate of a group divided by that of the previous group.
        norm: What normalization layers of the frozen groups do: `train` trains them, `stats` only updates their
            running statistics, `eval` fixes both and disables dropout; see `freeze_to`.
        plateau: Ends a phase early when a monitored metric stops improving; see `Phases`.
        allow_new_plan: Whether a resumed run may have other phases, learning rates or another length than its
            checkpoint. By default that is an error.
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
            raise ValueError("Expected `train_from` to have at least one stage, but it is empty")
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
