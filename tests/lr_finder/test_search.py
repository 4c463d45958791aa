import copy
import json
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset
from torchmetrics.regression import MeanSquaredError

import lightning_heads as lh
from lightning_heads.callbacks import FineTune
from lightning_heads.cli.main import main
from lightning_heads.lr_finder.search import lr_find

CONF = Path(__file__).parents[1] / "cli/conf"
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(24, 5, generator=GENERATOR)
Y = X @ torch.randn(5, 1, generator=GENERATOR) + 0.1 * torch.randn(24, 1, generator=GENERATOR)


class Net(nn.Module):
    """Two groups, with batch normalization and dropout in the first."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out

    def param_groups(self) -> list[list[nn.Parameter]]:
        return [[*self.body.parameters()], [*self.head.parameters()]]


class Task(lh.TransferModule):
    """Draws from global generators and its own, counts its steps, and can fail at one."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__(Net(), nn.MSELoss(), lr=(1e-3, 1e-2))
        self.model.body[0].bias.requires_grad_(False)
        self.rng = np.random.default_rng(3)
        self.count, self.counts = 0, [0]
        self.hparams["count"] = 0
        self.metric = MeanSquaredError()
        self.fails_at = fails_at

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.count += 1
        self.counts.append(self.count)
        self.hparams["count"] = self.count
        if self.count == self.fails_at:
            raise RuntimeError("failed")
        self.metric.update(self(batch[0]), batch[1])
        loss: Tensor = super().training_step(batch, batch_idx)
        return loss * (1 + random.random() + np.random.rand() + self.rng.random())


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from torch's global generator and its own."""

    def __init__(self) -> None:
        self.own = random.Random(1)
        self.seen = 0

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.seen += 1
        return X[index] + 0.1 * torch.rand(5) + 0.01 * self.own.random() + 1e-3 * self.seen, Y[index]


class OwnOrder:
    """A sampler that is no subclass of torch's, with a generator and an epoch count."""

    def __init__(self) -> None:
        self.rng, self.epochs = np.random.RandomState(0), 0

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        return iter(((self.rng.permutation(24) + self.epochs) % 24).tolist())

    def __len__(self) -> int:
        return 24


@dataclass
class Place:
    position: int = 0


class Stateful:
    """A loader that continues at the position in its state dict."""

    def __init__(self) -> None:
        self.places = (Place(),)

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(3):
            self.places[0].position += 5
            rows = torch.arange(8).add(self.places[0].position) % 24
            yield X[rows], Y[rows]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.places[0].position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.places[0].position = state["position"]


class Module(L.LightningDataModule):
    """Creates its data at the first `setup`."""

    def __init__(self) -> None:
        super().__init__()
        self.x: Tensor | None = None

    def setup(self, stage: str) -> None:
        if self.x is None:
            self.x = X + torch.rand(24, 5)

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.x is not None
        return DataLoader(TensorDataset(self.x, Y), 8, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(X, Y), 8)


def persistent(generator: torch.Generator | None = None) -> DataLoader[Any]:
    loader = DataLoader(Noisy(), 8, shuffle=True, num_workers=2, persistent_workers=True, generator=generator)
    for _ in loader:
        pass
    return loader


DATA: dict[str, Callable[[], Any]] = {
    "loader": lambda: DataLoader(Noisy(), 8, shuffle=True),
    "generator": lambda: DataLoader(Noisy(), 8, shuffle=True, generator=torch.Generator().manual_seed(4)),
    "sampler": lambda: DataLoader(Noisy(), 8, sampler=RandomSampler(Y, generator=torch.Generator().manual_seed(4))),
    "own sampler": lambda: DataLoader(Noisy(), 8, sampler=OwnOrder()),
    "stateful": Stateful,
    "module": Module,
    "workers": lambda: DataLoader(Noisy(), 8, shuffle=True, num_workers=2),
    "persistent workers": lambda: DataLoader(Noisy(), 8, shuffle=True, num_workers=2, persistent_workers=True),
    "used persistent workers": lambda: persistent(torch.Generator().manual_seed(4)),
}


def trainer_in(folder: Path, **settings: Any) -> L.Trainer:
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **{**options, **settings})


def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def contents(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """Converts objects of Lightning to lists of their attributes; other objects are compared by identity."""
    if id(value) in seen:
        return "seen"
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [(key, contents(item, (*seen, id(value)))) for key, item in items]
    if type(value).__module__.startswith("lightning.pytorch") and hasattr(value, "__dict__"):
        return (type(value), id(value), contents(vars(value), (*seen, id(value))))
    return value if isinstance(value, (int, float, str, type(None))) else id(value)


def random_states() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), bits(torch.get_rng_state())]


def bits(value: Any) -> Any:
    """Replaces tensors by their bytes, for bit-exact comparison."""
    if isinstance(value, Tensor):
        return (value.dtype, value.shape, value.detach().numpy().tobytes())
    if isinstance(value, (dict, list, tuple)):
        return [(key, bits(item)) for key, item in (value.items() if isinstance(value, dict) else enumerate(value))]
    return value


def task_state(task: Any) -> Any:
    tensors = [*task.named_parameters(), *task.named_buffers()]
    found: list[Any] = [(name, t, t.data_ptr(), t.requires_grad, t.grad) for name, t in tensors]
    found += [(name, module.training, sorted(vars(module))) for name, module in task.named_modules()]
    return bits(
        [*found, dict(task.hparams), task.count, task.counts, task.metric.metric_state, task.metric._update_count]
    )


def search(trainer: L.Trainer, task: L.LightningModule, data: Any, **settings: Any) -> Any:
    return lr_find(trainer, task, data, **{"num_steps": 20, "stop_div": False, "max_lr": 1.0, **settings})


@pytest.mark.parametrize("kind", DATA)
def test_a_fit_after_the_search_is_unaffected(tmp_path: Path, kind: str) -> None:
    fitted = []
    for searches in (False, True):
        seed()
        data, task = DATA[kind](), Task()
        trainer = trainer_in(tmp_path)
        if searches:
            before = random_states()
            search(trainer, task, data, num_steps=7)
            assert random_states() == before
        trainer.fit(task, data)
        fitted.append(bits([task.state_dict(), task.counts, trainer.callback_metrics, random_states()]))
        assert trainer.global_step == 6
    assert fitted[0] == fitted[1]


@pytest.mark.filterwarnings("ignore:Found 1 module.*in eval mode")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_everything_is_restored(tmp_path: Path, used: bool, fails: bool) -> None:
    seed()
    task, loader = Task(), DATA["generator"]()
    task.model.body[1].eval()
    trainer = trainer_in(tmp_path, logger=CSVLogger(tmp_path), max_time=timedelta(hours=1), gradient_clip_val=1.0)
    if used:
        trainer.fit(task, loader)
    task.model.head.weight.grad = torch.ones(1, 8)
    task.fails_at = task.count + 5 if fails else -1

    def everything() -> list[Any]:
        optimizers = bits([optimizer.state_dict() for optimizer in trainer.optimizers])
        data = [vars(loader).copy(), bits(loader.generator.get_state()), vars(loader.dataset).copy()]
        return [contents(trainer), task_state(task), random_states(), optimizers, *data]

    before = everything()
    if fails:
        with pytest.raises(RuntimeError, match="failed"):
            search(trainer, task, loader)
    else:
        search(trainer, task, loader)
    for ours, expected in zip(everything(), before, strict=True):
        assert ours == expected


def test_a_used_trainer_continues_unaffected(tmp_path: Path) -> None:
    fitted = []
    for searches in (False, True):
        seed()
        data, task = DATA["generator"](), Task()
        trainer = trainer_in(tmp_path)
        trainer.fit(task, data)
        if searches:
            search(trainer, task, data)
        trainer.fit_loop.max_epochs = 3
        trainer.fit(task, data)
        fitted.append(bits(task.state_dict()))
        assert (trainer.current_epoch, trainer.global_step) == (3, 9)
    assert fitted[0] == fitted[1]


def test_an_optimizer_that_the_task_keeps_is_restored(tmp_path: Path) -> None:
    class Keeps(Task):
        def __init__(self) -> None:
            super().__init__()
            self.kept = torch.optim.Adam(self.parameters(), lr=0.01)

        def configure_optimizers(self) -> Any:
            return self.kept

    seed()
    task, trainer = Keeps(), trainer_in(tmp_path)
    trainer.fit(task, DATA["loader"]())
    before = copy.deepcopy(task.kept.state_dict())
    search(trainer, task, DATA["loader"]())
    assert bits(task.kept.state_dict()) == bits(before)


def test_equals_fastais_search(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.callback import schedule
        from fastai.vision.all import DataLoaders, Learner, MSELossFlat, OptimWrapper, TfmdDL
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 5, generator=generator)
    y = x @ torch.randn(5, 1, generator=generator)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    twin = copy.deepcopy(model)
    loader = TfmdDL([*zip(x, y, strict=True)], bs=16, num_workers=0, shuffle=False)
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    learner = Learner(
        DataLoaders(loader, loader),
        model,
        loss_func=MSELossFlat(),
        opt_func=partial(OptimWrapper, opt=optimizer),
        path=tmp_path,
        train_bn=False,
    )
    with learner.no_bar():
        methods = (schedule.valley, schedule.slide, schedule.minimum, schedule.steep)
        suggested = learner.lr_find(suggest_funcs=methods, show_plot=False)
    task = lh.TransferModule(twin, nn.MSELoss(), optimizer=optimizer)
    curve = lr_find(trainer_in(tmp_path), task, DataLoader(TensorDataset(x, y), 16))
    losses = [float(loss) for loss in learner.recorder.losses]
    assert 50 < len(losses) < 100  # it diverged
    assert curve.losses == pytest.approx(losses[10:-5], rel=1e-5)
    assert curve.lrs == pytest.approx(learner.recorder.lrs[10:-5], rel=1e-9)
    assert [*curve.suggestions().values()] == pytest.approx([*suggested], rel=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 1},
        {"max_steps": 2},
        {"min_epochs": 30},
        {"min_steps": 500},
        {"max_time": timedelta(seconds=0)},
        {"fast_dev_run": True},
        {"overfit_batches": 2},
        {"limit_val_batches": 0},
        {"val_check_interval": 2},
        {"val_check_interval": timedelta(seconds=0)},
        {"num_sanity_val_steps": -1},
        {"reload_dataloaders_every_n_epochs": 1},
        {"limit_train_batches": 2},
        {"barebones": True, "logger": None, "enable_checkpointing": None, "enable_progress_bar": None},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_runs_all_steps_whatever_the_trainers_limits(tmp_path: Path, settings: dict[str, Any]) -> None:
    class Unvalidated(lh.TransferModule):
        def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            raise AssertionError

    class Ordered(Module):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(X, Y), 8)

    task = Unvalidated(Net(), nn.MSELoss())
    if settings.get("barebones"):
        settings |= {"enable_model_summary": None}
        task.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fast_dev_run|.*barebones|.*max_epochs")
        trainer = trainer_in(tmp_path, **settings)
    before = contents(trainer)
    curve = search(trainer, task, Ordered(), num_steps=40, max_lr=1e-2)
    assert len(curve.losses) == 40 - 4 - 5
    assert contents(trainer) == before


def test_disables_logging_checkpoints_and_other_callbacks(tmp_path: Path) -> None:
    class Other(L.Callback):
        def setup(self, *_: Any, **__: Any) -> None:
            raise AssertionError

    class Mixing(L.Callback):
        in_lr_find = True
        calls = 0

        def on_train_batch_start(self, *_: Any) -> None:
            self.calls += 1
            type(self).calls += 1

    class WithCallbacks(Task):
        def configure_callbacks(self) -> list[L.Callback]:
            return [Other()]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.logger.experiment.add_image("first", batch[0])
            return super().training_step(batch, batch_idx)

    callbacks = [Other(), Mixing(), ModelCheckpoint(tmp_path, every_n_train_steps=1)]
    trainer = trainer_in(tmp_path, logger=CSVLogger(tmp_path), enable_checkpointing=True, callbacks=callbacks)
    search(trainer, WithCallbacks(), Module())
    assert Mixing.calls == 20
    assert "calls" not in vars(callbacks[1])
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("tensors", [False, True])
def test_groups_keep_their_ratios_and_schedulers_do_nothing(tmp_path: Path, tensors: bool) -> None:
    class Scheduled(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            return {"loss": nn.functional.mse_loss(self.net(batch[0]), batch[1]), "batch": batch}

        def configure_optimizers(self) -> Any:
            rates = (0.02, torch.tensor(0.1)) if tensors else (0.02, 0.1)
            groups = [{"params": p, "lr": lr} for p, lr in zip(self.net.param_groups(), rates, strict=True)]
            optimizer = torch.optim.Adam(groups)
            if tensors:
                return {"optimizer": optimizer}
            total = self.trainer.estimated_stepping_batches
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.02, 0.1], int(total))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Rates(L.Callback):
        in_lr_find = True

        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            rates.append([float(group["lr"]) for group in trainer.optimizers[0].param_groups])

    rates: list[list[float]] = []
    trainer = trainer_in(tmp_path, callbacks=[Rates()])
    curve = search(trainer, Scheduled(), DataLoader(TensorDataset(X, Y), 8), num_steps=30, min_lr=1e-5, max_lr=0.1)
    expected = [1e-5 * 1e4 ** (i / 30) for i in range(30)]
    assert [last for _, last in rates] == pytest.approx(expected, rel=1e-6)
    assert [first for first, _ in rates] == pytest.approx([lr / 5 for lr in expected], rel=1e-6)
    assert curve.lrs == pytest.approx(expected[3:-5], rel=1e-6)


def test_accumulated_batches_equal_larger_batches(tmp_path: Path) -> None:
    data = TensorDataset(X, Y)
    curves = []
    for count, size in ((1, 8), (2, 4)):
        torch.manual_seed(0)
        task = lh.TransferModule(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), nn.MSELoss())
        trainer = trainer_in(tmp_path, accumulate_grad_batches=count)
        curves.append(search(trainer, task, DataLoader(data, size), num_steps=40))
    assert len(curves[0].lrs) == 31
    assert curves[1].lrs == curves[0].lrs
    assert curves[1].raw_losses == pytest.approx(curves[0].raw_losses, rel=1e-6)


def test_the_loss_of_a_step_is_the_mean_over_its_batches(tmp_path: Path) -> None:
    task = lh.TransferModule(nn.Linear(5, 1), nn.MSELoss())
    losses = [nn.functional.mse_loss(task(x), y).item() for x, y in zip(X.split(8), Y.split(8), strict=True)]
    trainer = trainer_in(tmp_path, accumulate_grad_batches=2)
    curve = search(trainer, task, DataLoader(TensorDataset(X, Y), 8), num_steps=4, min_lr=1e-15, max_lr=1e-14)
    assert curve.raw_losses == pytest.approx([(losses[0] + losses[1]) / 2, losses[2]] * 2)


def test_half_precision(tmp_path: Path) -> None:
    curves = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        task, loader = lh.TransferModule(Net(0), nn.MSELoss()), DataLoader(TensorDataset(X, Y), 8)
        curves.append(search(trainer_in(tmp_path, precision=precision), task, loader, max_lr=0.1))
        assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert curves[1].losses != curves[0].losses
    assert curves[1].losses == pytest.approx(curves[0].losses, rel=0.05)


def test_a_gradient_scaler_is_restored(tmp_path: Path) -> None:
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", growth_interval=2))
    task, loader = lh.TransferModule(nn.Linear(5, 1), nn.MSELoss()), DataLoader(TensorDataset(X, Y), 8)
    trainer = trainer_in(tmp_path, plugins=[precision])
    trainer.fit(task, loader)
    before = precision.scaler.state_dict()
    search(trainer, task, loader)
    assert precision.scaler.state_dict() == before


@pytest.mark.parametrize(
    ("schedule", "settings", "expected"),
    [
        (None, {}, {"body", "head"}),
        (None, {"train_from": -1}, {"head"}),
        (None, {"train_from": 0}, {"body", "head"}),
        (FineTune(1), {}, {"head"}),
        (FineTune(1), {"train_from": 0}, {"body", "head"}),
        (FineTune(0), {}, {"body", "head"}),
    ],
)
def test_freezes_as_asked_or_as_the_schedule_does(
    tmp_path: Path, schedule: L.Callback | None, settings: dict[str, Any], expected: set[str]
) -> None:
    class Trained(L.Callback):
        in_lr_find = True

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            trained.update(n.split(".")[1] for n, p in pl_module.named_parameters() if p.grad is not None)
            dropout_off.append(not pl_module.model.body[3].training)

    trained: set[str] = set()
    dropout_off: list[bool] = []
    task = lh.TransferModule(nn.Sequential(), nn.MSELoss())
    task.model = Net()
    task.model.body[1].requires_grad_(False)  # by default, normalization layers would train
    trainer = trainer_in(tmp_path, callbacks=[Trained(), *([schedule] if schedule else [])])
    search(trainer, task, DataLoader(TensorDataset(X, Y), 8), **settings)
    assert trained == expected
    assert not any(dropout_off)
    if "train_from" in settings:
        search(trainer, task, DataLoader(TensorDataset(X, Y), 8), norm="eval", **settings)
        assert any(dropout_off) == (expected == {"head"})
    assert all(p.requires_grad for p in task.model.body[0].parameters())
    assert all(module.training for module in task.modules())


def test_stops_where_the_loss_diverges(tmp_path: Path) -> None:
    task = lh.TransferModule(nn.Linear(5, 1), nn.MSELoss(), optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0))
    loader = DataLoader(TensorDataset(X, Y), 8)
    stopped = lr_find(trainer_in(tmp_path), task, loader, max_lr=100)
    to_the_end = lr_find(trainer_in(tmp_path), task, loader, max_lr=100, stop_div=False)
    assert len(stopped.losses) < len(to_the_end.losses) < 85  # its loss overflows at last
    assert to_the_end.losses[: len(stopped.losses)] == stopped.losses
    assert 1e-3 < stopped.suggestion < 1


def test_refuses_to_suggest_from_noise(tmp_path: Path) -> None:
    curve = lr_find(trainer_in(tmp_path), Task(), DATA["loader"](), max_lr=1e-6)
    with pytest.raises(ValueError, match="Expected the loss to fall"):
        _ = curve.suggestion


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_lr": 0.0}, "Expected 0 < `min_lr` < `max_lr`, both finite"),
        ({"min_lr": 2.0}, "but got 2.0 and 1.0"),
        ({"max_lr": float("inf")}, "both finite, but got 1e-07 and inf"),
        ({"num_steps": 0}, "`num_steps` to be a positive"),
        ({"train_from": 5}, "`train_from` between -2 and 1"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(trainer_in(tmp_path), Task(), DATA["loader"](), **arguments)


def test_a_loss_that_is_never_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected a finite loss at the lowest learning rate, 1e-07, but got nan"):
        search(trainer_in(tmp_path), Task(), DataLoader(TensorDataset(X, Y / 0 * 0), 8))


def test_no_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one training batch"):
        search(trainer_in(tmp_path, limit_train_batches=0), Task(), DATA["loader"]())


def test_strategies_that_spawn_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a strategy that trains in this process"):
        search(trainer_in(tmp_path, strategy="ddp_spawn", devices=2), Task(), DATA["loader"]())


def test_tasks_without_one_optimizer_are_refused(tmp_path: Path) -> None:
    manual = Task()
    manual.automatic_optimization = False
    with pytest.raises(ValueError, match="optimizes manually"):
        search(trainer_in(tmp_path), manual, DATA["loader"]())
    zero_lr = lh.TransferModule(Net(), nn.MSELoss(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
    zero_lr.configure_optimizers = lambda: torch.optim.SGD(zero_lr.parameters(), lr=0.0)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="last group's learning rate to be positive"):
        search(trainer_in(tmp_path), zero_lr, DATA["loader"]())


def test_a_progress_bar_is_shown_if_the_trainer_has_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for has_bar, progress, shown in ((True, True, True), (True, False, False), (False, True, False)):
        trainer = trainer_in(tmp_path, enable_progress_bar=has_bar)
        search(trainer, Task(), DATA["loader"](), progress=progress)
        assert ("learning rates: 100%" in capsys.readouterr().err) == shown


@pytest.fixture
def project(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUIET = [f"--trainer.{name}=false" for name in ("logger", "enable_progress_bar", "enable_model_summary")]


def test_lr_find_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(CONF / "classify_folder.yaml"), "--trainer.accelerator=cpu", *QUIET]
    cli = main(["lr-find", *arguments, "--min_lr=1e-6", "--max_lr=1", "--num_steps=60"])
    found = json.loads((project / "lr_find.json").read_text())
    assert set(found) == {"lrs", "losses", "suggestions"}
    assert 30 < len(found["lrs"]) == len(found["losses"])
    assert f"valley   {found['suggestions']['valley']:.1e}" in capsys.readouterr().out
    assert (project / "lr_find.png").exists()
    assert cli.trainer.global_step == 0


def test_lr_find_command_plots_a_curve_without_suggestions(project: Path) -> None:
    arguments = ["--config", str(CONF / "classify_folder.yaml"), "--trainer.accelerator=cpu", *QUIET]
    with pytest.raises(ValueError, match="at least 16 losses"):
        main(["lr-find", *arguments, "--num_steps=3"])
    assert (project / "lr_find.png").exists()
    assert not (project / "lr_find.json").exists()
