"""Reads photographs as phones make them with this library's data module and with the loaders of fastai, torchvision and
timm; prints seconds per photograph as a line of json.

`python tests/benchmarks/photographs.py jpeg-12mp-1-worker` measures 12-megapixel JPEGs with one worker process, and
`python tests/benchmarks --what photographs` everything. All contenders scale a photograph to cover 224 pixels and crop
the center, without augmentation. They alternate; a figure is the median of the rounds. `cpu` counts the processor time
of the main process and of its workers, which depends less on other load of the machine than `wall`.

`agreement` compares pixels, and the probabilities of an ImageNet classifier, with those of full decoding, and beside
them what bicubic instead of bilinear interpolation changes.
"""

import argparse
import gc
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import timm
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.data import read_image
from lightning_heads.data.transforms.resize import ResizeTo

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from common import ENCODER, prepare_weights

FOLDER = Path("demo/photographs_benchmark")
SIDE, BATCH_SIZE, ROUNDS = 224, 8, 5
# width and height, extension, and number of files, which are more where each takes less time
KINDS = {
    "jpeg-12mp": ((4032, 3024), "jpg", 24),
    "jpeg-3mp": ((2048, 1536), "jpg", 96),
    "jpeg-0.3mp": ((640, 480), "jpg", 600),
    "png-3mp": ((2048, 1536), "png", 48),
}
SCENES = "astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "rocket"
TEXTURES = "brick", "grass", "gravel"


def photograph(index: int, width: int, height: int) -> Image.Image:
    """Returns a picture of scikit-image, enlarged, with natural texture at scales of 1 to 8 pixels and sensor noise."""
    scene = Image.fromarray(getattr(skimage.data, SCENES[index % len(SCENES)])()).convert("RGB")
    scale = max(width / scene.width, height / scene.height)
    scene = scene.resize((round(scene.width * scale), round(scene.height * scale)), Image.Resampling.BICUBIC)
    texture = Image.fromarray(getattr(skimage.data, TEXTURES[index % len(TEXTURES)])())
    detail = np.random.default_rng(index).normal(0, 2, (height, width)).astype(np.float32)
    for factor in (1, 2, 4, 8):
        large = texture.resize((factor * texture.width, factor * texture.height), Image.Resampling.BICUBIC)
        smooth = large.filter(ImageFilter.GaussianBlur(4 * factor))
        waves = 0.3 * (np.asarray(large, np.float32) - np.asarray(smooth, np.float32))
        margins = [(0, max(side - have, 0)) for side, have in zip((height, width), waves.shape, strict=True)]
        detail += np.pad(waves, margins, mode="symmetric")[:height, :width]
    pixels = np.asarray(scene.crop((0, 0, width, height)), np.float32)
    brightness = pixels.mean(axis=-1, keepdims=True) / 255
    return Image.fromarray((pixels + detail[..., None] * (0.2 + 0.8 * brightness)).clip(0, 255).astype(np.uint8))


def prepare(kind: str) -> Path:
    """Writes the photographs of a kind to two folders, as if of two classes, and returns their parent."""
    (width, height), extension, count = KINDS[kind]
    folder = FOLDER / kind
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i:03}.{extension}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            distinct = i % (2 * len(SCENES))
            same = folder / "ab"[distinct % 2] / f"{distinct:03}.{extension}"
            if same.exists():
                path.hardlink_to(same)
            else:
                photograph(distinct, width, height).save(path, quality=92)
    return folder


def ours(folder: Path, workers: int) -> Any:
    data = lh.ImageFolderData(folder, image_size=SIDE, batch_size=BATCH_SIZE, num_workers=workers, predict_root=folder)
    return data.predict_dataloader()


def torchvisions(folder: Path, workers: int) -> Any:
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    dataset = ImageFolder(folder, v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE), *to_float]))
    return torch.utils.data.DataLoader(dataset, BATCH_SIZE, num_workers=workers)


def timms(folder: Path, workers: int) -> Any:
    return timm.data.create_loader(
        timm.data.create_dataset("", root=str(folder)),
        input_size=(3, SIDE, SIDE),
        batch_size=BATCH_SIZE,
        num_workers=workers,
        use_prefetcher=False,
        interpolation="bilinear",
        crop_pct=1.0,
        device=torch.device("cpu"),
    )


def fastais(folder: Path, workers: int) -> Any:
    from fastai.vision.all import ImageDataLoaders, Resize, get_image_files

    loaders = ImageDataLoaders.from_folder(folder, valid_pct=0.5, item_tfms=Resize(SIDE), bs=BATCH_SIZE, num_workers=0)
    return loaders.test_dl(get_image_files(folder), bs=BATCH_SIZE, num_workers=workers)


CONTENDERS: dict[str, Callable[[Path, int], Any]] = {
    "ours": ours,
    "fastai": fastais,
    "torchvision": torchvisions,
    "timm": timms,
}


def costs(folder: Path, workers: int, seed: int) -> dict[str, Any]:
    """Returns the median processor and wall time of each contender, in seconds per photograph."""
    found: dict[str, dict[str, list[float]]] = {"cpu": {}, "wall": {}}
    names = [*CONTENDERS]
    for turn in range(seed, seed + ROUNDS):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            loader = CONTENDERS[name](folder, workers)
            gc.collect()
            gc.freeze()  # so that workers do not copy, nor the collection below visit, what other contenders imported
            start, processor, count = time.perf_counter(), _processor_time(), 0
            for batch in loader:
                count += len(batch if isinstance(batch, Tensor) else batch[0])
            del loader, batch
            gc.collect()  # ends the workers, whose time is not counted before
            found["wall"].setdefault(name, []).append((time.perf_counter() - start) / count)
            found["cpu"].setdefault(name, []).append((_processor_time() - processor) / count)
    return {what: {name: statistics.median(all_) for name, all_ in each.items()} for what, each in found.items()}


def _processor_time() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@torch.inference_mode()
def agreement() -> dict[str, Any]:
    """Returns by how much pixels (0 to 255) and probabilities differ from those of full decoding, for each size."""
    prepare_weights(FOLDER)
    model = timm.create_model(ENCODER).eval()
    model.load_state_dict(load_file(FOLDER / f"{ENCODER}.safetensors"))
    size, crop = ResizeTo((SIDE, SIDE)), v2.CenterCrop(SIDE)
    found = {}
    for kind in [name for name in KINDS if name.startswith("jpeg")]:
        paths = sorted(prepare(kind).glob("*/*"), key=lambda path: path.name)[: 2 * len(SCENES)]
        full = [read_image(path) for path in paths]
        sides = [[*size.scaled_size(*image.shape[1:])] for image in full]
        bicubic = v2.InterpolationMode.BICUBIC
        ways = {
            "full": [size(image) for image in full],
            "scaled": [size(read_image(path, size=size.scaled_size)) for path in paths],
            "bicubic": [
                crop(v2.functional.resize(image, side, bicubic)) for image, side in zip(full, sides, strict=True)
            ],
        }
        probabilities = {
            way: model((torch.stack(images) / 255 - 0.5) / 0.5).softmax(dim=1) for way, images in ways.items()
        }
        for way in ("scaled", "bicubic"):
            pixels = (torch.stack(ways[way]).int() - torch.stack(ways["full"]).int()).abs().float().mean(dim=(1, 2, 3))
            moved = (probabilities[way] - probabilities["full"]).abs()
            same = (probabilities[way].argmax(dim=1) == probabilities["full"].argmax(dim=1)).float().mean()
            found[f"{kind}, {way}"] = {
                "gray levels, mean": float(pixels.mean()),
                "gray levels, largest mean of a photograph": float(pixels.max()),
                "probability, largest difference of a photograph on average": float(moved.amax(dim=1).mean()),
                "same most probable class": float(same),
            }
    return found


def main() -> None:
    names = [f"{kind}-{workers}-worker{'s' * (workers > 1)}" for kind in KINDS for workers in (1, 2)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*names, "agreement"])
    parser.add_argument("--seed", type=int, default=0, help="number of the turn, which decides who runs first")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.name == "agreement":
        print(json.dumps(agreement()))
    else:
        kind, workers, _ = options.name.rsplit("-", 2)
        print(json.dumps(costs(prepare(kind), int(workers), options.seed)))


if __name__ == "__main__":
    main()
