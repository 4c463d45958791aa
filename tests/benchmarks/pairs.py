"""Accuracy and time of the Siamese recipe of fastai's book on pairs of solar cells, compared with fastai.

Run `python tests/benchmarks/pairs.py`. Both train on the same pairs, drawn anew for each epoch, and are evaluated on
the same fixed pairs of held-out cells. Both start from the same ImageNet weights of an EfficientNet-Lite0 and train for
the same number of epochs: 4 of the head at 3e-3, then 4 of everything at 1e-6 to 1e-4. Images are in memory, so that no
time goes to reading files. fastai's model is built from its `TimmBody` and `create_head` as in its book, and trained by
its `Learner`.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lightning_heads as lh
from lightning_heads.data import read_image
from lightning_heads.data.pairs.dataset import DrawnPairs, Pair, PairedImages
from lightning_heads.data.transforms.resize import ResizeTo

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from common import ENCODER, prepare_weights
from solar_pairs import prepare_kinds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fastai.callback.schedule  # noqa: F401, gives a learner `fit_one_cycle`
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.torch_core import params
    from fastai.vision.learner import TimmBody, create_head

FOLDER = Path("demo/solar_pairs")
FROZEN, UNFROZEN = 4, 4


class EpochPairs:
    """Pairs that are determined by a seed and an epoch or, if `fixed`, by the seed alone."""

    def __init__(self, labels: Tensor, seed: int, fixed: bool) -> None:
        self.drawn, self.seed, self.fixed = DrawnPairs(labels), seed, fixed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        self.pairs = self.drawn.fixed(self.seed if self.fixed else 1000 * (self.seed + 1) + epoch)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


class Images(Dataset[Tensor]):
    """Data set of images in memory."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def paired(cells: tuple[Tensor, Tensor], seed: int, fixed: bool) -> Any:
    images, labels = cells
    return PairedImages(Images(images), EpochPairs(labels, seed, fixed))


class Book(nn.Module):
    """The Siamese model of fastai's book for images in 0..1, with fastai's wrapper of timm's encoder."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        model = timm.create_model(ENCODER)
        model.load_state_dict(load_file(weights))
        model.reset_classifier(0, "")
        self.encoder, self.head = TimmBody(model), create_head(model.num_features * 2, 2, ps=0.5)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        maps = [self.encoder((x - self.mean) / self.std) for x in (first, second)]
        out: Tensor = self.head(torch.cat(maps, dim=1))
        return out


class FastaiPairs(Callback):  # type: ignore[misc]
    """Draws the pairs of each epoch of a fastai run, and records the epoch's time."""

    def __init__(self, pairs: EpochPairs) -> None:
        self.pairs, self.seconds = pairs, []

    def before_train(self) -> None:
        self.pairs.start_epoch(len(self.seconds))
        self.start = time.perf_counter()

    def after_train(self) -> None:
        self.seconds.append(time.perf_counter() - self.start)


class OurPairs(L.Callback):
    """Draws the pairs of each epoch of our run, and records its time; encoding for the cache counts as the first."""

    def __init__(self, pairs: EpochPairs) -> None:
        self.pairs, self.seconds = pairs, list[float]()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pairs.start_epoch(len(self.seconds))
        if self.seconds:
            self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def read_cells(size: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns images and classes of the training and the validation cells."""
    data = lh.PairTableData(
        prepare_kinds(FOLDER), label="kind", valid_fraction=0.25, seed=seed, image_size=size, resize="squish"
    )
    resize = ResizeTo((size, size), "squish")
    cells = {}
    for split, samples in data.samples.items():
        images = torch.stack([resize(read_image(path)) for path in samples.paths]) / 255
        cells[split] = images, torch.tensor(samples.tolist())
    return cells


def fastais(cells: dict[str, tuple[Tensor, Tensor]], weights: Path, seed: int, batch_size: int) -> dict[str, float]:
    train, valid = paired(cells["train"], seed, fixed=False), paired(cells["valid"], seed, fixed=True)
    torch.manual_seed(seed)
    loaders = DataLoaders(
        DataLoader(train, batch_size, shuffle=True, drop_last=True), DataLoader(valid, batch_size), device="cpu"
    )
    model, pairs = Book(weights), FastaiPairs(train.pairs)
    learner = Learner(
        loaders,
        model,
        loss_func=lambda outputs, same: nn.functional.cross_entropy(outputs, same.long()),
        splitter=lambda model: [params(model.encoder), params(model.head)],
        metrics=accuracy,
        cbs=[pairs],
    )
    with learner.no_logging():
        learner.freeze()
        learner.fit_one_cycle(FROZEN, 3e-3)
        learner.unfreeze()
        learner.fit_one_cycle(UNFROZEN, slice(1e-6, 1e-4))
        score = float(learner.validate()[1])
    return summary(score, pairs.seconds)


def ours(
    cells: dict[str, tuple[Tensor, Tensor]], weights: Path, seed: int, batch_size: int, cached: bool = False
) -> dict[str, float]:
    train, valid = paired(cells["train"], seed, fixed=False), paired(cells["valid"], seed, fixed=True)
    torch.manual_seed(seed)
    task = lh.PairClassifier(ENCODER, weights=weights, comparison="concatenation", lr=3e-3)
    recipe = lh.Phases(
        [lh.Phase(FROZEN, train_from=-1, norm="eval" if cached else "train"), lh.Phase(UNFROZEN, lr=(1e-6, 1e-4))]
    )
    pairs = OurPairs(train.pairs)
    trainer = L.Trainer(
        max_epochs=FROZEN + UNFROZEN,
        callbacks=[recipe, pairs, *([lh.FeatureCache(progress=False)] if cached else [])],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = DataLoader(train, batch_size, shuffle=True, drop_last=True), DataLoader(valid, batch_size)
    trainer.fit(task, *loaders)
    score = trainer.validate(task, loaders[1], verbose=False)[0]["val_accuracy"]
    return summary(score, pairs.seconds)


def cached(cells: dict[str, tuple[Tensor, Tensor]], weights: Path, seed: int, batch_size: int) -> dict[str, float]:
    """Trains ours with cached features: the frozen encoder runs on each image once, in the first epoch."""
    return ours(cells, weights, seed, batch_size, cached=True)


def passes(size: int, batch_size: int, rounds: int = 7) -> float:
    """Returns the time of a training step with both images in one forward pass, divided by that with two passes."""
    models = [lh.SiameseModel(ENCODER, pretrained=False, two_pass=two_pass).train() for two_pass in (False, True)]
    first, second = torch.rand(2, batch_size, 3, size, size)
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for model, taken in zip(models, seconds, strict=True):
            start = time.perf_counter()
            model(first, second).square().sum().backward()
            taken.append(time.perf_counter() - start)
    return statistics.median(one_pass / two_pass for one_pass, two_pass in zip(*seconds, strict=True))


def summary(accuracy: float, seconds: list[float]) -> dict[str, float]:
    return {
        "accuracy": accuracy,
        "first frozen epoch, s": seconds[0],
        "frozen epoch, s": statistics.mean(seconds[:FROZEN]),
        "unfrozen epoch, s": statistics.median(seconds[FROZEN:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="number of pairs in a batch")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of split, pairs, head and batch order"
    )
    options = parser.parse_args()
    print(f"one pass / two passes, step: {passes(options.size, options.batch_size):.2f}", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_weights(FOLDER)
    runs = {"ours": ours, "ours, cached": cached, "fastai": fastais}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for seed in options.seeds:
        cells = read_cells(options.size, seed)
        for name, train in runs.items():
            results[name].append(train(cells, FOLDER / f"{ENCODER}.safetensors", seed, options.batch_size))
            print(f"seed {seed}, {name}: {results[name][-1]}", flush=True)
    for name, rows in results.items():
        print(f"{name}: mean accuracy {statistics.mean(row['accuracy'] for row in rows):.4f}")
    for name in ("ours", "ours, cached"):
        for kind in ("first frozen epoch, s", "frozen epoch, s", "unfrozen epoch, s"):
            ratios = [a[kind] / b[kind] for a, b in zip(results[name], results["fastai"], strict=True)]
            print(f"{name} / fastai, {kind.removesuffix(', s')}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
