"""One training run on photographs of solar cells, by this library or by a peer; prints its cost as a line of json.

`python tests/benchmarks/cells.py NAME --seed 0` does one run, `python tests/benchmarks` all of them. All start from the
same ImageNet weights of an EfficientNet-Lite0, on the same split of the cells, with the same classes, image sizes and
batch sizes. Where images are augmented, ours and fastai's are flipped in both directions, rotated by multiples of 90
degrees and, except in the accuracy runs, changed in brightness and contrast; torchvision's are flipped and changed in
brightness and contrast. fastai's loaders and `Learner` are used as in its documentation.
"""

import argparse
import csv
import json
import logging
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import v2

import lightning_heads as lh

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from common import ENCODER, prepare_weights
from solar_cells import prepare_table

FOLDER = Path("demo/solar_cells_benchmark")
WEIGHTS = FOLDER / f"{ENCODER}.safetensors"
WORKERS = 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGET = 0.86  # validation accuracy at which the accuracy runs end


def prepare(seed: int) -> Path:
    """Writes the weights and a table with hard labels and the published split, and returns the table's path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"seed{seed}.csv"
    if not WEIGHTS.exists():
        prepare_weights(FOLDER)
    if not path.exists():
        prepare_table(FOLDER)
        data = lh.ImageTableData(
            FOLDER / "cells.csv",
            probabilities=["functional", "defective"],
            stratify=["defective", "type"],
            valid_fraction=0.25,
            seed=seed,
        )
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "is_valid"])
            for split, samples in data.samples.items():
                for image, target in zip(samples.paths, samples.targets, strict=True):
                    label = ("functional", "defective")[int(target[1] > 0.5)]
                    writer.writerow([image, label, split, split == "valid"])
    return path


class Clock(L.Callback):
    """Records, per epoch, the seconds since the start, the validation accuracy and the seconds of training alone.

    It stops the run when the validation accuracy reaches `target`.
    """

    def __init__(self, target: float = 1.0) -> None:
        self.target = target
        self.start = time.perf_counter()
        self.seconds, self.accuracy, self.epochs = list[float](), list[float](), list[float]()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epoch_start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.batch_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(self.batch_end - self.epoch_start)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        self.accuracy.append(float(trainer.callback_metrics["val_accuracy"]))
        trainer.should_stop = trainer.should_stop or self.accuracy[-1] >= self.target

    def result(self) -> dict[str, Any]:
        reached = bool(self.accuracy) and self.accuracy[-1] >= self.target
        return {"seconds": self.seconds, "accuracy": self.accuracy, "epochs": self.epochs, "reached": reached}


class ReachedError(Exception):
    """Stops a fastai run that has reached the target accuracy."""


def our_data(options: argparse.Namespace, augment: bool = True, lighting: bool = True) -> lh.ImageTableData:
    return lh.ImageTableData(
        prepare(options.seed),
        labels=["label"],
        split="split",
        image_size=options.size,
        batch_size=options.batch_size,
        num_workers=WORKERS,
        resize="squish",
        augmentation=lh.AugTransforms(
            flip_vert=True, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=0.2 if lighting else 0
        ),
        augment=augment,
    )


def ours(
    options: argparse.Namespace,
    callbacks: list[L.Callback],
    epochs: int,
    augment: bool = True,
    validates: bool = True,
    lr: Any = 2e-3,
    target: float = 1.0,
    lighting: bool = True,
    hypercolumns: bool = False,
) -> dict[str, Any]:
    L.seed_everything(options.seed, verbose=False)
    data, clock = our_data(options, augment, lighting), Clock(target)
    task = lh.ImageClassifier(ENCODER, data.num_classes, weights=WEIGHTS, lr=lr, hypercolumns=hypercolumns)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, clock],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if validates else 0,
    )
    clock.start = time.perf_counter()
    trainer.fit(task, data)
    return clock.result()


def encoder_weights() -> dict[str, Tensor]:
    return {name: value for name, value in load_file(WEIGHTS).items() if not name.startswith("classifier")}


def fastai_loaders(options: argparse.Namespace, augment: bool = True, lighting: bool = True) -> Any:
    import pandas
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, ResizeMethod, aug_transforms

    config = timm.create_model(ENCODER).pretrained_cfg
    max_lighting = 0.2 if lighting else 0
    changes = aug_transforms(flip_vert=True, max_rotate=0, max_zoom=1, max_warp=0, max_lighting=max_lighting)
    return ImageDataLoaders.from_df(
        pandas.read_csv(prepare(options.seed)),
        path="/",
        valid_col="is_valid",
        item_tfms=Resize(options.size, ResizeMethod.Squish),
        batch_tfms=[*(changes if augment else []), Normalize.from_stats(config["mean"], config["std"])],
        bs=options.batch_size,
        val_bs=options.batch_size,
        num_workers=WORKERS,
        device=DEVICE,
    )


def fastais(
    options: argparse.Namespace,
    fit: Callable[[Any], object],
    validates: bool = True,
    target: float = 1.0,
    augment: bool = True,
    train_bn: bool = True,
    lighting: bool = True,
) -> dict[str, Any]:
    from fastai.vision.all import Callback, CancelValidException, Learner, accuracy, create_timm_model, default_split

    torch.manual_seed(options.seed)
    clock = Clock(target)

    class Watch(Callback):  # type: ignore[misc]
        def before_train(self) -> None:
            clock.epoch_start = time.perf_counter()

        def after_train(self) -> None:
            clock.epochs.append(time.perf_counter() - clock.epoch_start)

        def before_validate(self) -> None:
            if not validates:
                raise CancelValidException

        def after_validate(self) -> None:
            if validates:
                clock.seconds.append(time.perf_counter() - clock.start)
                clock.accuracy.append(float(self.learn.recorder.metrics[0].value))
                if clock.accuracy[-1] >= target:
                    raise ReachedError(f"an accuracy of {target}")

    loaders = fastai_loaders(options, augment, lighting)
    model, _ = create_timm_model(ENCODER, 2, pretrained=False)
    model[0].model.load_state_dict(encoder_weights())
    learner = Learner(loaders, model, splitter=default_split, metrics=accuracy, cbs=[Watch()], train_bn=train_bn)
    with learner.no_bar(), learner.no_logging():
        clock.start = time.perf_counter()
        learner.freeze()
        with suppress(ReachedError):
            fit(learner)
    return clock.result()


def epoch_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Any,
    after_step: Callable[[Tensor, Tensor, Tensor], object] = lambda *_: None,
) -> dict[str, Any]:
    """Trains for an epoch in a plain PyTorch loop."""
    clock = Clock()
    start = time.perf_counter()
    for images, target in loader:
        images, target = images.to(DEVICE), target.to(DEVICE)
        output = model(images)
        loss = nn.functional.cross_entropy(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(output, target, loss)
    clock.epochs.append(time.perf_counter() - start)
    return clock.result()


def bare(options: argparse.Namespace) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """Returns our model, its optimizer and our data loader, for training without Lightning."""
    torch.manual_seed(options.seed)
    model = lh.ImageModel(ENCODER, 2, weights=WEIGHTS).to(DEVICE)
    optimizer = torch.optim.AdamW(lh.optimizer_groups(model), lr=1e-3, betas=(0.9, 0.99), eps=1e-5)
    return model, optimizer, our_data(options).train_dataloader()


def bare_loop(options: argparse.Namespace) -> dict[str, Any]:
    return epoch_of(*bare(options))


def torchvision_loop(options: argparse.Namespace) -> dict[str, Any]:
    """Trains timm's model like torchvision's reference script: its loader, optimizer, and metrics at each step."""
    torch.manual_seed(options.seed)
    model = timm.create_model(ENCODER, num_classes=2)
    model.load_state_dict(encoder_weights(), strict=False)
    model.to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scores: list[tuple[float, float]] = []

    def score(output: Tensor, target: Tensor, loss: Tensor) -> None:
        scores.append((loss.item(), (output.argmax(1) == target.argmax(1)).float().mean().item()))

    return epoch_of(model, optimizer, torchvision_loader(options), score)


def frozen_epochs(options: argparse.Namespace, views: int | None = None) -> dict[str, Any]:
    """Trains the head with a frozen encoder.

    Args:
        options: The command line's.
        views: Number of augmented views of each image that are cached; 0 augments anew in each epoch without a cache,
            None caches the images without augmentation.
    """
    callbacks: list[L.Callback] = [lh.Phases([lh.Phase(options.epochs, train_from=-1, norm="eval", lr=1e-3)])]
    if views != 0:
        callbacks.append(lh.FeatureCache(views=views or 1, progress=False))
    return ours(options, callbacks, options.epochs, augment=views is not None)


def fastai_frozen_epochs(options: argparse.Namespace, plain: bool = False) -> dict[str, Any]:
    """Trains the head; unless `plain`, on augmented images and with batch normalization trained, fastai's default."""
    return fastais(
        options,
        lambda learner: learner.fit_one_cycle(options.epochs, 2e-3),
        augment=not plain,
        train_bn=not plain,
    )


def fine_tune_epoch(options: argparse.Namespace) -> dict[str, Any]:
    return ours(options, [lh.OneCycle()], 1, validates=False)


def fine_tune_in_turn(options: argparse.Namespace) -> dict[str, Any]:
    """Alternates six epochs of ours and six of the bare loop in this process; the first of each is left out."""
    model, optimizer, loader = bare(options)
    epochs: list[float] = []

    class Between(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            epochs.extend(epoch_of(model, optimizer, loader)["epochs"])

    result = ours(options, [lh.OneCycle(), Between()], 6, validates=False)
    return {"epochs": result["epochs"][1:], "bare_epochs": epochs[1:]}


def fastai_fine_tune_epoch(options: argparse.Namespace) -> dict[str, Any]:
    def fit(learner: Any) -> None:
        learner.unfreeze()
        learner.fit_one_cycle(1, 2e-3)

    return fastais(options, fit, validates=False)


def accuracy_run(options: argparse.Namespace) -> dict[str, Any]:
    """Trains a head on cached hypercolumns of four views, for at most three cycles, until the target is reached."""
    phases = lh.Phases([lh.Phase(10, train_from=-1, norm="eval") for _ in range(3)])
    cache = lh.FeatureCache(views=4, progress=False)
    return ours(options, [phases, cache], 30, target=TARGET, lighting=False, hypercolumns=True)


def fastai_accuracy_run(options: argparse.Namespace) -> dict[str, Any]:
    return fastais(options, lambda learner: learner.fine_tune(5, 2e-3), target=TARGET, lighting=False)


def fastai_unfrozen_accuracy_run(options: argparse.Namespace, epochs: int) -> dict[str, Any]:
    def fit(learner: Any) -> None:
        learner.unfreeze()
        learner.fit_one_cycle(epochs, 2e-3)

    return fastais(options, fit, target=TARGET, lighting=False)


def images_a_second(loader: Any) -> dict[str, Any]:
    """Returns the median number of images per second over three epochs of a data loader."""
    rates = []
    for _ in range(3):
        start, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch[0])
        rates.append(count / (time.perf_counter() - start))
    return {"images_a_second": statistics.median(rates)}


def loading(options: argparse.Namespace) -> dict[str, Any]:
    return images_a_second(our_data(options).train_dataloader())


def fastai_loading(options: argparse.Namespace) -> dict[str, Any]:
    return images_a_second(fastai_loaders(options).train)


def torchvision_loader(options: argparse.Namespace) -> Any:
    """Returns a data loader like that of torchvision's reference script: Pillow decodes, transforms are per image."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((options.size, options.size), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(0.2, 0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    samples = our_data(options).samples["train"]

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(samples.paths)

        def __getitem__(self, index: int) -> Any:
            with Image.open(samples.paths[index]) as file:
                return transform(file.convert("RGB")), samples.targets[index]

    return torch.utils.data.DataLoader(
        Images(), options.batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )


def torchvision_loading(options: argparse.Namespace) -> dict[str, Any]:
    return images_a_second(torchvision_loader(options))


RUNS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ours-frozen": frozen_epochs,
    "ours-4-views": partial(frozen_epochs, views=4),
    "ours-live": partial(frozen_epochs, views=0),
    "fastai-frozen": fastai_frozen_epochs,
    "fastai-frozen-plain": partial(fastai_frozen_epochs, plain=True),
    "ours-fine-tune": fine_tune_epoch,
    "fastai-fine-tune": fastai_fine_tune_epoch,
    "bare-fine-tune": bare_loop,
    "fine-tune-in-turn": fine_tune_in_turn,
    "torchvision-fine-tune": torchvision_loop,
    "ours-accuracy": accuracy_run,
    "fastai-accuracy": fastai_accuracy_run,
    **{f"fastai-{n}-unfrozen-accuracy": partial(fastai_unfrozen_accuracy_run, epochs=n) for n in (3, 4, 6)},
    "ours-loading": loading,
    "fastai-loading": fastai_loading,
    "torchvision-loading": torchvision_loading,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--seed", type=int, default=0, help="seed of split, head and batch order")
    parser.add_argument("--size", type=int, default=128, help="side of an image in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="number of images in a batch")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the frozen runs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    prepare(options.seed)  # before the seed is set, so that a first run draws the same numbers as later ones
    result = RUNS[options.name](options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
