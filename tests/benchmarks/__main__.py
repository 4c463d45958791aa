"""What training costs beside fastai, torchvision and plain PyTorch, on photographs of solar cells.

`python tests/benchmarks` measures everything, in about two hours on 2 cores, and `--what` some of it. Contenders take
turns, each in a process of its own, and figures are medians of ratios within a turn. What is printed also goes to
`demo/benchmarks.json`.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = 0.86  # that of the runs

# glibc returns large blocks to the system and faults them in again at every step, which slows all alike
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}

Result = dict[str, Any]


def run(name: str, seed: int, *options: str) -> Result:
    command = [sys.executable, str(HERE / "cells.py"), name, "--seed", str(seed), *options]
    found = subprocess.run(command, env=os.environ | MEMORY, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(found.stdout.splitlines()[-1])
    print(f"{name}, seed {seed}: {result}", flush=True)
    return result


def turns(names: list[str], seeds: list[int], *options: str) -> dict[str, list[Result]]:
    """Runs each contender with each seed, in turn."""
    found: dict[str, list[Result]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            found[name].append(run(name, seed, *options))
    return found


def ratio(found: dict[str, list[Result]], one: str, other: str, cost: Any) -> float:
    return statistics.median(cost(a) / cost(b) for a, b in zip(found[one], found[other], strict=True))


def seconds_to_target(result: Result) -> float:
    """Returns when the accuracy reached the target, at which runs end, or infinity."""
    return float(result["seconds"][-1]) if result["accuracy"][-1] >= TARGET else math.inf


def frozen(seeds: list[int]) -> tuple[dict[str, list[Result]], dict[str, float]]:
    found = turns(["ours-frozen", "fastai-frozen"], seeds)
    figures = {"10 frozen epochs, time over fastai's": ratio(found, *found, lambda r: r["seconds"][-1])}
    for name, results in found.items():
        figures[f"{name}: accuracy"] = statistics.mean(r["accuracy"][-1] for r in results)
    return found, figures


def views(seeds: list[int]) -> tuple[dict[str, list[Result]], dict[str, float]]:
    found = turns(["ours-frozen", "ours-4-views", "ours-live"], seeds)
    figures = {
        f"10 frozen epochs, time of {name} over augmentation at each access": ratio(
            found, name, "ours-live", lambda r: r["seconds"][-1]
        )
        for name in ("ours-frozen", "ours-4-views")
    }
    for name, results in found.items():
        figures[f"{name}: accuracy"] = statistics.mean(r["accuracy"][-1] for r in results)
    return found, figures


def fine_tune(seeds: list[int]) -> tuple[dict[str, list[Result]], dict[str, float]]:
    found = turns(["ours-fine-tune", "fastai-fine-tune", "bare-fine-tune", "torchvision-fine-tune"], seeds)
    figures = {}
    for peer in ("fastai", "bare", "torchvision"):
        names = "ours-fine-tune", f"{peer}-fine-tune"
        figures[f"fine-tune epoch, time over {peer}"] = ratio(found, *names, lambda r: r["epochs"][-1])
        figures[f"fine-tune epoch, peak memory over {peer}"] = ratio(found, *names, lambda r: r["peak_mib"])
    return found, figures


def accuracy(seeds: list[int]) -> tuple[dict[str, list[Result]], dict[str, float]]:
    peers = ["fastai-accuracy", *(f"fastai-{epochs}-unfrozen-accuracy" for epochs in (3, 4, 6))]
    found = turns(["ours-accuracy", *peers], seeds)
    seconds = {name: [*map(seconds_to_target, results)] for name, results in found.items()}
    figures = {f"{name}: seconds to {TARGET:.0%}": statistics.median(taken) for name, taken in seconds.items()}
    own, *others = seconds.values()
    best = [min(taken) for taken in zip(*others, strict=True)]
    ratios = [a / b for a, b in zip(own, best, strict=True)]
    figures[f"time to {TARGET:.0%}, over the best of fastai's"] = statistics.median(ratios)
    return found, figures


def loading(seeds: list[int]) -> tuple[dict[str, list[Result]], dict[str, float]]:
    found = turns(["ours-loading", "fastai-loading", "torchvision-loading"], seeds)
    figures = {}
    for peer in ("fastai", "torchvision"):
        names = "ours-loading", f"{peer}-loading"
        figures[f"images a second over {peer}'s"] = ratio(found, *names, lambda r: r["images_a_second"])
    return found, figures


KINDS = {"loading": loading, "fine_tune": fine_tune, "frozen": frozen, "views": views, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    path = Path("demo/benchmarks.json")
    path.parent.mkdir(exist_ok=True)
    for kind in options.what:
        runs, figures = KINDS[kind](options.seeds)
        for name, value in figures.items():
            print(f"{name}: {value:.3f}", flush=True)
        report = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**report, kind: {"figures": figures, "runs": runs}}, indent=1))


if __name__ == "__main__":
    main()
