"""Time of a frozen and of an unfrozen training step, compared with a bare PyTorch loop and fastai.

Run `python tests/benchmarks/step_time.py`. The contenders alternate within each round, so that other load on the
machine slows all of them; figures are medians over rounds of the ratios within a round. All train on the same batch in
memory, so that data loading takes no time.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.optim.param_groups import optimizer_groups

ENCODER = "resnet34"


class Clock(L.Callback):
    """Records when each training step starts; the time between two starts includes the trainer's own work."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.starts.append(time.perf_counter())


def ours(batches: DataLoader[Any], schedule: L.Callback, accelerator: str) -> float:
    clock = Clock()
    task = lh.ImageClassifier(f"torchvision/{ENCODER}", 2, pretrained=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            default_root_dir=folder,
            max_epochs=1,
            callbacks=[schedule, clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator=accelerator,
            devices=1,
        )
        trainer.fit(task, batches)
    return _median_gap(clock.starts)


def bare(x: Tensor, y: Tensor, steps: int) -> tuple[float, float]:
    """Returns the time of a forward pass without gradients and of a training step, both with our model."""
    model = lh.ImageModel(f"torchvision/{ENCODER}", 2, pretrained=False).to(x.device)
    optimizer = torch.optim.AdamW(optimizer_groups(model), betas=(0.9, 0.99), eps=1e-5)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    model.eval()
    passes = _repeat(forward, steps)
    model.train()
    return passes, _repeat(step, steps)


def fastais(x: Tensor, y: Tensor, steps: int) -> tuple[float, float]:
    """Returns the times of a frozen and of an unfrozen training step with fastai."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.callback.core import Callback, CancelValidException
        from fastai.vision.all import (
            CrossEntropyLossFlat,
            DataLoaders,
            Learner,
            TfmdDL,
            create_vision_model,
            model_meta,
        )
        from torchvision.models import resnet34

        class Start(Callback):  # type: ignore[misc]
            def __init__(self) -> None:
                self.starts: list[float] = []

            def before_batch(self) -> None:
                if not self.training:
                    raise CancelValidException
                self.starts.append(time.perf_counter())

        rows = [(x[i].cpu(), y[i].cpu()) for i in range(len(x))] * steps
        loader = TfmdDL(rows, bs=len(x), num_workers=0, device=x.device)
        splitter = model_meta[resnet34]["split"]
        model = create_vision_model(resnet34, 2, pretrained=False)
        learner = Learner(
            DataLoaders(loader, loader, device=x.device), model, CrossEntropyLossFlat(), splitter=splitter
        )
        times = []
        with learner.no_bar(), learner.no_logging():
            for freeze in (learner.freeze, learner.unfreeze):
                freeze()
                clock = Start()
                learner.fit(1, cbs=clock)
                times.append(_median_gap(clock.starts))
    return times[0], times[1]


def _repeat(call: Callable[[], None], steps: int) -> float:
    starts = []
    for _ in range(steps):
        starts.append(time.perf_counter())
        call()
    return _median_gap(starts)


def _median_gap(starts: list[float]) -> float:
    """Returns the median time from one start to the next, without the first step, which allocates memory."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return statistics.median(after - before for before, after in pairwise(starts[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--steps", type=int, default=8, help="number of steps of each contender in a round")
    parser.add_argument("--batch-size", type=int, default=16, help="number of images in a batch")
    parser.add_argument("--image-size", type=int, default=128, help="side of an image in pixels")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    device = "cuda" if accelerator == "gpu" else "cpu"
    x = torch.rand(options.batch_size, 3, options.image_size, options.image_size)
    y = torch.arange(options.batch_size) % 2
    batches = DataLoader(TensorDataset(x.repeat(options.steps, 1, 1, 1), y.repeat(options.steps)), options.batch_size)
    rows = []
    for _ in range(options.rounds):
        frozen = ours(batches, lh.Phases([lh.Phase(train_from=-1, norm="eval")]), accelerator)
        unfrozen = ours(batches, lh.OneCycle(), accelerator)
        passes, step = bare(x.to(device), y.to(device), options.steps)
        fastai_frozen, fastai_unfrozen = fastais(x.to(device), y.to(device), options.steps)
        rows.append([frozen / passes, fastai_frozen / passes, unfrozen / step, fastai_unfrozen / step])
        print("  ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print(
        f"{ENCODER}, {options.batch_size} images of {options.image_size} pixels, {accelerator}, {options.rounds} rounds"
    )
    print(f"frozen step over a forward pass: ours {medians[0]:.2f}, fastai's {medians[1]:.2f}")
    print(f"unfrozen step over a bare PyTorch loop: ours {medians[2]:.2f}, fastai's {medians[3]:.2f}")


if __name__ == "__main__":
    main()
