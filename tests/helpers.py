"""Shared by tests: a small model with three parameter groups, its data, a quiet trainer, and runs in several ranks."""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 2


class Net(nn.Module):
    """A model of three parameter groups, with normalization and dropout in the body."""

    def __init__(self, dropout: float = 0.0, batch_norm: bool = True) -> None:
        super().__init__()
        norm = nn.BatchNorm1d if batch_norm else nn.LayerNorm
        self.body = nn.Sequential(
            nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Dropout(dropout)),
            nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()),
        )
        self.head = nn.Sequential(norm(8), nn.Dropout(dropout), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out

    def param_groups(self) -> list[list[nn.Parameter]]:
        return [[*module.parameters()] for module in (self.body[0], self.body[1], self.head)]


def trainer_for(folder: Path, callbacks: list[L.Callback], epochs: int = 3, **settings: Any) -> L.Trainer:
    options = {"enable_checkpointing": False, "max_epochs": epochs, "accelerator": "cpu", "logger": False, **settings}
    return L.Trainer(
        default_root_dir=folder,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


class Recorder(L.Callback):
    """Records, at every step, the learning rate of each group, the momentum and the number of trainable parameters."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.momenta: list[float] = []
        self.trained: list[int] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        rates: dict[str, float] = {}
        for group in optimizer.param_groups:
            rates[group["name"].split("/")[0]] = group["lr"]
        self.rates.append([*rates.values()])
        self.momenta.append(optimizer.param_groups[0]["betas"][0])
        self.trained.append(sum(p.requires_grad for p in pl_module.parameters()))


class ImageLogger(Logger):
    """Accepts images with the interface of `WandbLogger`."""

    name = version = None

    def __init__(self) -> None:
        self.tags: list[tuple[str, int]] = []

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert images[0].size[0] > 100
        self.tags.append((key, step or 0))

    def log_hyperparams(self, *args: Any) -> None: ...
    def log_metrics(self, *args: Any, **settings: Any) -> None: ...


class ExperimentLogger(ImageLogger):
    """Accepts images with the interface of `TensorBoardLogger`."""

    log_image = property()  # type: ignore[assignment]

    @property
    def experiment(self) -> "ExperimentLogger":
        return self

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        assert image.shape[2] == 3
        self.tags.append((tag, step))


def fit(
    folder: Path,
    schedule: L.Callback,
    epochs: int = 3,
    *,
    lr: Any = 1e-2,
    model: nn.Module | None = None,
    task: lh.TransferModule | None = None,
    data: tuple[Tensor, Tensor] = (X, Y),
    **settings: Any,
) -> tuple[lh.TransferModule, Recorder]:
    recorder = Recorder()
    task = task or lh.TransferModule(model or Net(), nn.CrossEntropyLoss(), lr=lr)
    callbacks = [schedule, recorder, *settings.pop("callbacks", [])]
    trainer_for(folder, callbacks, epochs, **settings).fit(task, DataLoader(TensorDataset(*data), 4))
    return task, recorder


def run_processes(
    target: Callable[..., Any], world_size: int, folder: Path, *args: Any, timeout: float = 120
) -> list[Any] | None:
    """Runs `target(*args)` in one process per rank, as launched for Lightning, and returns the result of each rank.

    Returns None if a process was killed, and kills the others then. Any other failure is an error.
    """
    context = fork_server()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outputs = [folder / f"rank_{rank}.pt" for rank in range(world_size)]
    processes = [
        context.Process(target=_run_rank, args=(target, args, rank, world_size, port, outputs[rank]))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        limit = time.monotonic() + timeout
        while any(process.is_alive() for process in processes):
            codes = [process.exitcode for process in processes]
            if -signal.SIGKILL in codes:
                return None
            assert not any(codes), f"a process failed: {codes}"
            assert time.monotonic() < limit, "processes hang"
            time.sleep(0.01)
        codes = [process.exitcode for process in processes]
        if -signal.SIGKILL in codes:
            return None
        assert not any(codes), f"a process failed: {codes}"
        return [torch.load(output) for output in outputs]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def fork_server() -> ForkServerContext:
    """Returns a context whose processes are forked from a server that has imported everything once.

    The order of sets differs between this process and the server.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch", "lightning_heads.public", "pytest", "tests.helpers"])
    with patch.dict(os.environ, PYTHONHASHSEED="random"):
        forkserver.ensure_running()
    return context


def _run_rank(
    target: Callable[..., Any], args: tuple[Any, ...], rank: int, world_size: int, port: int, output: Path
) -> None:
    gc.freeze()  # a collection would copy the memory that the process shares with the server
    torch.set_num_threads(1)
    if world_size > 1:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE=str(world_size))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.save(target(*args), output)
