from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lightning_heads as lh
from lightning_heads.optim.param_groups import optimizer_groups
from tests.helpers import Net, Recorder, X, Y, fit, trainer_for


def test_phases_of_epochs_fractions_and_steps(tmp_path: Path) -> None:
    phases = [
        lh.Phase(steps=3, train_from=-1, norm="eval", shape=lh.Constant(), lr=1.0),
        lh.Phase(epochs=0.5, train_from=1, norm="eval", shape=lambda position: 1 - position, lr=[1.0, 2.0, 4.0]),
        lh.Phase(train_from=-1, norm="eval", shape=lh.Constant(), lr=(None, 0.1)),
    ]
    recorder = fit(tmp_path, lh.Phases(phases), 2)[1]
    assert recorder.trained == [4, 4, 4, 8, 8, 4, 4, 4]
    assert [rates[-1] for rates in recorder.rates] == pytest.approx([1, 1, 1, 4, 2, 0.1, 0.1, 0.1])
    assert recorder.rates[3] == [1.0, 2.0, 4.0]


def test_phases_change_between_steps_and_not_between_micro_batches(tmp_path: Path) -> None:
    phases = [lh.Phase(steps=1, train_from=-1, norm="eval"), lh.Phase(train_from=0)]
    recorder = fit(tmp_path, lh.Phases(phases), 2, accumulate_grad_batches=3)[1]
    assert len(recorder.rates) == 4  # an epoch's last batch steps too
    assert recorder.trained[0] == 4
    assert set(recorder.trained[1:]) == {12}


def test_fast_dev_run_truncates_the_phases(tmp_path: Path) -> None:
    recorder = fit(tmp_path, lh.FineTune(), fast_dev_run=2)[1]
    assert len(recorder.rates) == 2


@pytest.mark.parametrize("norm", ["train", "stats", "eval"])
@pytest.mark.parametrize("compiled", [False, True])
def test_frozen_groups_change_only_as_norm_allows(tmp_path: Path, norm: Any, compiled: bool) -> None:
    seen: list[dict[str, Tensor]] = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
            if trainer.global_step in (10, 110):
                seen.append({name: value.clone() for name, value in pl_module.model.body.state_dict().items()})

    frozen = lh.Phase(steps=100, train_from=-1, norm=norm, shape=lh.Constant())
    schedule = lh.Phases([lh.Phase(steps=10), frozen, lh.Phase(steps=10)])
    task = lh.TransferModule(
        Net(), nn.CrossEntropyLoss(), lr=0.1, optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=0.5)
    )
    if compiled:
        task.compile(backend="aot_eager")
    fit(tmp_path, schedule, 30, task=task, callbacks=[Look()])
    norms = ("0.1.weight", "0.1.bias", "1.1.weight", "1.1.bias")
    changed = {name for name in seen[0] if not torch.equal(seen[0][name], seen[1][name])}
    buffers = {"0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"}
    assert changed == {"train": {*norms, *buffers}, "stats": buffers, "eval": set()}[norm]


def test_moments_are_cleared_when_other_groups_train(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
            sizes.append(len(trainer.optimizers[0].state))

    phases = [lh.Phase(steps=n, train_from=first, norm="eval") for n, first in ((2, 0), (2, -1), (4, 0), (4, -1))]
    fit(tmp_path, lh.Phases(phases), callbacks=[Look()])
    assert sizes == [12] * 2 + [4] * 2 + [12] * 4 + [4] * 4


def test_the_table_lists_what_each_phase_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def rows(schedule: L.Callback, model: nn.Module, lr: float) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
            fit(tmp_path, schedule, lr=lr, model=model)
        table = next(record.message for record in caplog.records if record.message.startswith("Phases"))
        return [" ".join(row.split()) for row in table.splitlines()[2:]]

    assert rows(lh.FineTune(), Net(), 1e-3) == [
        "1 1 4 model.head + norm layers 66 0.001 Cycle",
        "2 2 8 everything 194 5e-06 to 0.0005 Cycle",
    ]
    frozen = Net()
    frozen.body.requires_grad_(False)
    phases = [lh.Phase(epochs=1, train_from=-1), lh.Phase(lr=(1e-4, 1e-2))]
    assert rows(lh.Phases(phases), frozen, 1e-2) == [
        "1 1 4 model.head 34 0.01 Cycle",
        "2 2 8 model.head 34 0.0001 to 0.01 Cycle",
    ]


def _sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=0.9)


def _timm(groups: Any) -> torch.optim.Optimizer:
    import timm.optim

    optimizer: torch.optim.Optimizer = timm.optim.Lion(groups)
    return optimizer


@pytest.mark.parametrize(
    "optimizer",
    [
        _sgd,
        _timm,
        lambda groups: torch.optim.AdamW(groups, fused=True),
        lambda groups: torch.optim.AdamW(groups, foreach=True),
        lambda groups: torch.optim.Adam(groups, lr=torch.tensor(1e-2), foreach=False),
        torch.optim.RMSprop,
    ],
)
def test_works_with_any_optimizer(tmp_path: Path, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=1e-2, optimizer=optimizer)
    before = {name: value.clone() for name, value in task.model.named_parameters()}
    phases = [lh.Phase(epochs=2, train_from=-1, norm="eval"), lh.Phase()]
    middle: list[set[str]] = []

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            parameters = pl_module.model.named_parameters()
            middle.append({name.split(".")[0] for name, value in parameters if not torch.equal(value, before[name])})

    trainer_for(tmp_path, [lh.Phases(phases), Look()], gradient_clip_val=0.5).fit(
        task, DataLoader(TensorDataset(X, Y), 4)
    )
    assert middle == [{"head"}, {"head"}, {"body", "head"}]


def test_zero_momentum_stays_zero(tmp_path: Path) -> None:
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), optimizer=lambda groups: torch.optim.SGD(groups))
    trainer = trainer_for(tmp_path, [lh.OneCycle()])
    trainer.fit(task, DataLoader(TensorDataset(X, Y), 4))
    assert {group["momentum"] for group in trainer.optimizers[0].param_groups} == {0}


def test_a_custom_lightning_module(tmp_path: Path) -> None:
    class Own(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.classifier = nn.Linear(6, 8), nn.Linear(8, 2)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.classifier(self.encoder(batch[0])), batch[1])

        def param_groups(self) -> list[list[nn.Parameter]]:
            return [[*self.encoder.parameters()], [*self.classifier.parameters()]]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(optimizer_groups(self, 1e-2))

    recorder = Recorder()
    trainer_for(tmp_path, [lh.FineTune(), recorder]).fit(Own(), DataLoader(TensorDataset(X, Y), 4))
    assert recorder.trained == [2] * 4 + [4] * 8


class _Plain(L.LightningModule):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        super().__init__()
        self.make, self.model = make, Net()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return self.make(self.model)


def _one_group(model: nn.Module) -> Any:
    return torch.optim.AdamW(model.parameters())


def _scheduled(model: nn.Module) -> Any:
    optimizer = torch.optim.AdamW(optimizer_groups(model))
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@pytest.mark.parametrize(
    ("make", "schedule", "message"),
    [
        (_one_group, lh.FineTune(), "several parameter groups to freeze some"),
        (_scheduled, lh.FineTune(), "no `lr_scheduler`"),
        (lambda m: torch.optim.AdamW(optimizer_groups(m)), lh.Phases([lh.Phase(epochs=9)]), "36.*raise `max_epochs`"),
        (lambda m: torch.optim.AdamW(optimizer_groups(m)), lh.Phases([lh.Phase(epochs=1)]), "leave the length"),
        (
            lambda m: torch.optim.AdamW(optimizer_groups(m)),
            lh.FineTune(3),
            "have a step, but a run of 12 .3 epochs. is divided into 12 \\+ the rest",
        ),
        (lambda m: torch.optim.AdamW(optimizer_groups(m)), lh.FineTune(0.1), "every phase to have a step.*0.4 \\+ the"),
        (
            lambda m: torch.optim.AdamW(optimizer_groups(m)),
            lh.Phases([lh.Phase(train_from=3)]),
            "`train_from` between -3 and 2",
        ),
        (
            lambda m: torch.optim.AdamW(optimizer_groups(m)),
            lh.Phases([lh.Phase(lr=[1.0, 2.0, 3.0, 4.0])]),
            "3 numbers, one a group",
        ),
    ],
)
def test_unsuitable_phases_are_refused(tmp_path: Path, make: Any, schedule: L.Callback, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path, [schedule]).fit(_Plain(make), DataLoader(TensorDataset(X, Y), 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lh.Phase(epochs=1, steps=2), "`epochs` or `steps`, but got both"),
        (lambda: lh.Phase(epochs=0), "`epochs` to be positive"),
        (lambda: lh.Phase(steps=-1), "`steps` to be positive"),
        (lambda: lh.Phase(norm="evl"), "`norm` to be train, stats, eval, but got 'evl'"),
        (lambda: lh.Phases([]), "at least one phase"),
        (lambda: lh.GradualUnfreeze(train_from=[], lr_scale=[]), "`train_from` to have at least one stage"),
        (lambda: lh.FineTune(-1), "`frozen_epochs`"),
        (lambda: lh.OneCycle(pct_start=1.0), "`pct_start`"),
        (lambda: lh.Cycle(div=0), "`div`"),
        (lambda: lh.GradualUnfreeze(lr_scale=[1.0]), "`lr_scale` to have 4 entries"),
        (lambda: lh.Plateau(mode="up"), "`mode`"),
        (lambda: lh.Plateau(patience=0), "`patience`"),
    ],
)
def test_invalid_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_two_schedules_and_negative_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one schedule, but got FineTune and OneCycle; `Phases` combines"):
        fit(tmp_path, lh.FineTune(), callbacks=[lh.OneCycle()])
    with pytest.raises(ValueError, match="`lr` to be positive"):
        fit(tmp_path, lh.Phases([lh.Phase(lr=(-1e-4, 1e-3))]))


class _Split(BaseFinetuning):
    def freeze_before_training(self, pl_module: L.LightningModule) -> None: ...


@pytest.mark.parametrize(
    "other", [StochasticWeightAveraging(swa_lrs=1e-2), LearningRateFinder(num_training_steps=3), _Split()]
)
def test_callbacks_that_set_rates_are_refused_by_name(tmp_path: Path, other: L.Callback) -> None:
    recorder = Recorder()
    message = f"FineTune alone to set learning rates, but {type(other).__name__} sets them too; remove it, "
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, lh.FineTune(), callbacks=[other, recorder])
    assert not recorder.rates


class _Rates(L.Callback):
    """Changes the optimizer in a hook."""

    def __init__(self, hook: str, change: Callable[[L.Trainer], object]) -> None:
        self.steps = 0
        setattr(self, hook, lambda trainer, *args: change(trainer))

    def on_before_optimizer_step(self, *args: object) -> None:
        self.steps += 1


def _halve(trainer: L.Trainer) -> None:
    for group in trainer.optimizers[0].param_groups:
        group["lr"] /= 2


def _schedule(trainer: L.Trainer) -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizers[0], 1)
    trainer.lr_scheduler_configs.append(LRSchedulerConfig(scheduler))


def _add_group(trainer: L.Trainer) -> None:
    trainer.optimizers[0].add_param_group({"params": [("new", nn.Parameter(torch.zeros(1)))], "lr": 1.0})


@pytest.mark.parametrize(
    ("hook", "change", "message", "steps"),
    [
        ("on_train_start", _halve, r"something else has changed 0.01 to 0.005: a callback, a hook", 0),
        ("on_train_epoch_end", _halve, "something else has changed .* to ", 4),
        ("on_train_batch_start", _halve, "something else has changed .* to ", 1),
        ("on_train_epoch_start", _schedule, "OneCycle alone to set learning rates, but the trainer has StepLR too", 0),
        ("on_train_epoch_end", _add_group, "the optimizer to keep its 6 groups, but it has 7", 4),
    ],
)
def test_rates_that_something_else_sets_during_the_run_are_refused(
    tmp_path: Path, hook: str, change: Callable[[L.Trainer], object], message: str, steps: int
) -> None:
    other = _Rates(hook, change)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, lh.OneCycle(), callbacks=[other])
    assert other.steps == steps


def test_a_phase_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    model = Net()
    model.head.requires_grad_(False)
    recorder = Recorder()
    for norm in ("train", "eval"):
        schedule = lh.Phases([lh.Phase(epochs=1), lh.Phase(train_from=-1, norm=norm)])
        with pytest.raises(ValueError, match="`requires_grad_` froze all of them: steps 4 to 12"):
            fit(tmp_path, schedule, model=model, callbacks=[recorder])
    assert not recorder.rates  # the error is raised before training


def test_works_with_lightnings_callbacks(tmp_path: Path) -> None:
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=1e-2)
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="val_loss", save_last=True)
    stop = EarlyStopping("val_loss", patience=100)
    monitor = LearningRateMonitor("step", log_momentum=True)
    trainer = trainer_for(
        tmp_path,
        [lh.FineTune(2), lh.EMA(0.9), checkpoint, stop, monitor],
        4,
        enable_checkpointing=True,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
    )
    loader = DataLoader(TensorDataset(X, Y), 4)
    trainer.fit(task, loader, loader)
    assert trainer.global_step == 16
    assert Path(checkpoint.best_model_path).exists()
    assert stop.best_score < 1
    names = {f"lr-AdamW/{group}/{kind}" for group in range(3) for kind in ("decay", "no_decay")}
    assert set(monitor.lrs) == names
    table = (Path(trainer.log_dir or "") / "metrics.csv").read_text().splitlines()
    column = table[0].split(",").index("lr-AdamW/2/decay")
    rates = [float(value) for value in (row.split(",")[column] for row in table[1:]) if value]
    recorder = fit(tmp_path, lh.FineTune(2), 4)[1]
    assert rates == pytest.approx([rates[-1] for rates in recorder.rates])


def test_mixed_precision_does_not_change_frozen_parameters(tmp_path: Path) -> None:
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=0.1)
    before = {name: value.clone() for name, value in task.model.body.state_dict().items()}
    fit(tmp_path, lh.Phases([lh.Phase(train_from=-1, norm="eval")]), 25, task=task, precision="bf16-mixed")
    assert all(torch.equal(value, before[name]) for name, value in task.model.body.state_dict().items())


class _Scripted(lh.TransferModule):
    """Logs validation losses that the test sets."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(Net(), nn.CrossEntropyLoss(), lr=1e-2)
        self.losses = losses
        self.seen: list[Tensor] = []

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.seen.append(self.model.head[2].weight.detach().clone())
            self.log("scripted", self.losses[self.trainer.current_epoch])


def test_a_plateau_ends_a_phase_and_the_next_begins_from_its_best(tmp_path: Path) -> None:
    task = _Scripted([3.0, 1.0, 2.0, 2.0, 0.9, 0.8, 0.95, 0.95, 0.95, 0.95])
    phases = [lh.Phase(epochs=6, train_from=-1, norm="eval"), lh.Phase(epochs=4)]
    begun: list[tuple[int, Tensor]] = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if pl_module.model.body[0][0].weight.requires_grad and not begun:
                begun.append((trainer.current_epoch, pl_module.model.head[2].weight.detach().clone()))

    schedule = lh.Phases(phases, plateau=lh.Plateau("scripted", patience=2))
    loader = DataLoader(TensorDataset(X, Y), 4)
    trainer = trainer_for(tmp_path, [schedule, Look()], 10)
    trainer.fit(task, loader, loader)
    epoch, weights = begun[0]
    assert epoch == 4  # two epochs after the best
    assert torch.equal(weights, task.seen[1])
    assert trainer.current_epoch == 8  # the last phase kept its four epochs
    assert trainer.global_step == 32


def test_the_state_of_a_plateau_is_resumed(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 2.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    loader = DataLoader(TensorDataset(X, Y), 4)

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def run(path: Path | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        phases = [lh.Phase(epochs=6, train_from=-1, norm="eval"), lh.Phase(epochs=4)]
        schedule = lh.Phases(phases, plateau=lh.Plateau("scripted", patience=2))
        task = _Scripted(losses)
        trainer = trainer_for(tmp_path, [schedule, Stop()], 10)
        trainer.fit(task, loader, loader, ckpt_path=path, weights_only=True)
        assert trainer.current_epoch == 8
        return {name: value.clone() for name, value in task.model.state_dict().items()}

    uninterrupted = run(None)
    for epoch in (2, 3, 5):
        resumed = run(tmp_path / f"{epoch}.ckpt")
        assert all(torch.equal(value, resumed[name]) for name, value in uninterrupted.items()), epoch


def test_a_schedule_can_be_used_by_two_trainers(tmp_path: Path) -> None:
    phases = [lh.Phase(epochs=2, train_from=-1, norm="eval"), lh.Phase()]
    schedule = lh.Phases(phases, plateau=lh.Plateau("scripted", patience=2))
    loader = DataLoader(TensorDataset(X, Y), 4)
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        task = _Scripted([1.0, 2.0, 3.0, 4.0])
        trainer_for(tmp_path, [schedule], 4).fit(task, loader, loader)
        ends.append(task.model.head[2].weight.detach().clone())
    assert torch.equal(ends[0], ends[1])


def test_restore_best_with_averaged_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`restore_best=False` together with averaged weights"):
        fit(tmp_path, lh.FineTune(plateau=lh.Plateau()), callbacks=[lh.EMA()])


def test_the_learning_rate_is_constant_after_the_last_phase(tmp_path: Path) -> None:
    recorder = Recorder()
    task = _Scripted([1.0] + [2.0] * 7)
    loader = DataLoader(TensorDataset(X, Y), 4)
    schedule = lh.Phases([lh.Phase(epochs=4), lh.Phase(epochs=4)], plateau=lh.Plateau("scripted", patience=1))
    trainer_for(tmp_path, [schedule, recorder], 8, min_epochs=8).fit(task, loader, loader)
    last = [rates[-1] for rates in recorder.rates][24:]  # the phases were over after six epochs
    assert last == [pytest.approx(1e-2 / 1e5)] * 8


def test_moments_of_a_wrapped_optimizer_are_cleared(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
            sizes.append(len(trainer.optimizers[0]._base_optimizer.state))

    def lookahead(groups: Any) -> torch.optim.Optimizer:
        from timm.optim import Lookahead

        wrapped: torch.optim.Optimizer = Lookahead(torch.optim.AdamW(groups))
        return wrapped

    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), optimizer=lookahead)
    phases = [lh.Phase(steps=2), lh.Phase(train_from=-1, norm="eval")]
    fit(tmp_path, lh.Phases(phases), task=task, callbacks=[Look()])
    assert sizes == [12] * 2 + [4] * 10


class Line(lh.Shape):
    """A custom shape: linear."""

    def __init__(self, end: float) -> None:
        self.end = end

    def factor(self, position: float) -> float:
        return 1 + (self.end - 1) * position


@pytest.mark.parametrize("shape", [Line, lambda end: lambda position: 1 + (end - 1) * position])
def test_custom_shapes_are_compared_by_their_values(tmp_path: Path, shape: Any) -> None:
    class Save(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "run.ckpt")

    def run(end: float, path: Path | None) -> None:
        trainer = trainer_for(tmp_path, [lh.Phases([lh.Phase(shape=shape(end))]), Save()], 2)
        task = lh.TransferModule(Net(), nn.CrossEntropyLoss())
        trainer.fit(task, DataLoader(TensorDataset(X, Y), 4), ckpt_path=path, weights_only=True)

    run(0.1, None)
    run(0.1, tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="phases that the run began with"):
        run(0.2, tmp_path / "run.ckpt")


def test_data_that_end_early_are_reported(tmp_path: Path) -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from zip(X, Y, strict=True)

    task = lh.TransferModule(Net(), nn.CrossEntropyLoss())
    loader = DataLoader(Endless(), 4)
    with pytest.raises(ValueError, match="`max_steps`, or `max_epochs` and data of known length"):
        trainer_for(tmp_path, [lh.OneCycle()], 2).fit(task, loader)
    trainer_for(tmp_path, [lh.OneCycle()], 9, max_steps=8).fit(task, loader)
    with pytest.warns(UserWarning, match="ended at step 8, before its phases end at step 20"):
        trainer_for(tmp_path, [lh.OneCycle()], 2, limit_train_batches=10).fit(task, loader)


def test_gradual_unfreezing_fits_any_number_of_groups() -> None:
    def stages(callback: lh.GradualUnfreeze, count: int) -> list[tuple[int, float | None]]:
        return [(phase.train_from, phase.epochs) for phase in callback.phases_for([1.0] * count)]

    assert stages(lh.GradualUnfreeze(2), 5) == [(-1, 2), (-2, 2), (-3, 2), (0, None)]
    assert stages(lh.GradualUnfreeze(2), 2) == [(-1, 2), (0, None)]
    custom = lh.GradualUnfreeze(train_from=(-2, -3), lr_scale=(1, 0.5))
    assert stages(custom, 4) == [(-2, 1), (-3, None)]
    assert stages(custom, 3) == [(-2, None)]


def test_a_metric_that_is_not_logged_is_named(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(X, Y), 4)
    schedule = lh.FineTune(plateau=lh.Plateau("val_lost"))
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match=r"`monitor` to be a logged metric \(.*val_loss.*\), but got 'val_lost'"):
        trainer_for(tmp_path, [schedule]).fit(task, loader, loader)


@pytest.mark.parametrize("settings", [{"steps": 2.5}, {"train_from": -1.5}])
def test_fractions_of_steps_and_groups_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="to be an integer"):
        lh.Phase(**settings)


def test_a_schedule_can_be_plotted(tmp_path: Path) -> None:
    path = tmp_path / "schedule.png"
    figure = lh.plot_schedule(lh.FineTune(1), epochs=3, lr=1e-2, epoch_steps=4, path=path)
    assert path.stat().st_size > 0
    first, _, head = (line.get_ydata() for line in figure.axes[0].lines[:3])
    recorder = fit(tmp_path, lh.FineTune(1), lr=1e-2)[1]
    assert [*head] == [rates[-1] for rates in recorder.rates]
    assert np.isnan(first[:4]).all()  # frozen
    assert [*first[4:]] == [rates[0] for rates in recorder.rates][4:]
    assert [*figure.axes[1].lines[0].get_ydata()] == recorder.momenta
