"""Time, memory and accuracy of training compared with fastai, torchvision and plain PyTorch, on photos of solar cells.

`python tests/benchmarks` measures everything in about two hours on 2 cores, `--what` a part of it. In each turn (one
seed) every contender runs once, in a process of its own except for `bare_loop`. Figures are medians over the turns with
their range; they are printed and also written to `demo/benchmarks.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PHOTOGRAPHS = "jpeg-12mp", "jpeg-3mp", "jpeg-0.3mp", "png-3mp"

# by default glibc returns large blocks to the system and faults them in again at every step, which slows all contenders
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}

Result = dict[str, Any]
Results = dict[str, list[Result]]
Figures = dict[str, list[float]]  # one value per turn


def run(name: str, seed: int, script: str = "cells.py") -> Result:
    """Runs a contender, or a comparison of several, in a process of its own."""
    command = [sys.executable, str(HERE / script), name, "--seed", str(seed)]
    found = subprocess.run(command, env=os.environ | MEMORY, stdout=subprocess.PIPE, text=True, check=True)
    result: Result = json.loads(found.stdout.splitlines()[-1])
    print(f"{name}, seed {seed}: {result}", flush=True)
    return result


def turns(names: list[str], seeds: list[int]) -> Results:
    """Runs all contenders once per seed; the one that runs first rotates."""
    found: Results = {name: [] for name in names}
    for turn, seed in enumerate(seeds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(run(name, seed))
    return found


def ratios(found: Results, name: str, peer: str, cost: Callable[[Result], float]) -> list[float]:
    """Returns the cost of one contender divided by that of another, turn by turn."""
    return [cost(a) / cost(b) for a, b in zip(found[name], found[peer], strict=True)]


def all_seconds(result: Result) -> float:
    return float(result["seconds"][-1])


def peak(result: Result) -> float:
    return float(result["peak_mib"])


def accuracies(found: Results) -> Figures:
    return {f"{name}: accuracy": [result["accuracy"][-1] for result in results] for name, results in found.items()}


def frozen(seeds: list[int]) -> tuple[Results, Figures]:
    own, *peers = names = ["ours-frozen", "fastai-frozen", "fastai-frozen-plain"]
    found = turns(names, seeds)
    figures = accuracies(found)
    for peer in peers:
        figures[f"10 frozen epochs, time over {peer}"] = ratios(found, own, peer, all_seconds)
        figures[f"10 frozen epochs, peak memory over {peer}"] = ratios(found, own, peer, peak)
    return found, figures


def views(seeds: list[int]) -> tuple[Results, Figures]:
    *cached, live = names = ["ours-frozen", "ours-4-views", "ours-live"]
    found = turns(names, seeds)
    figures = accuracies(found)
    for name in cached:
        figures[f"10 frozen epochs, time of {name} over {live}"] = ratios(found, name, live, all_seconds)
    return found, figures


def fine_tune(seeds: list[int]) -> tuple[Results, Figures]:
    own, *peers = names = ["ours-fine-tune", "fastai-fine-tune", "bare-fine-tune", "torchvision-fine-tune"]
    found = turns(names, seeds)
    figures: Figures = {}
    for peer in peers:
        figures[f"fine-tune epoch, time over {peer}"] = ratios(found, own, peer, lambda r: float(r["epochs"][-1]))
        figures[f"fine-tune epoch, peak memory over {peer}"] = ratios(found, own, peer, peak)
    return found, figures


def bare_loop(seeds: list[int]) -> tuple[Results, Figures]:
    """Alternates epochs in one process: the difference is too small for separate processes on a busy machine."""
    found = turns(["fine-tune-in-turn"], seeds)
    medians = [
        statistics.median(a / b for a, b in zip(result["epochs"], result["bare_epochs"], strict=True))
        for result in found["fine-tune-in-turn"]
    ]
    return found, {"fine-tune epoch, time over a bare loop's in the same process": medians}


def accuracy(seeds: list[int]) -> tuple[Results, Figures]:
    """Compares the time to the target accuracy; a turn has a ratio if ours and a run of fastai reached it."""
    own, *peers = names = [
        "ours-accuracy",
        "fastai-accuracy",
        *(f"fastai-{epochs}-unfrozen-accuracy" for epochs in (3, 4, 6)),
    ]
    found = turns(names, seeds)
    figures: Figures = {}
    for name, results in found.items():
        figures[f"{name}: seconds, of runs that reached it"] = [all_seconds(r) for r in results if r["reached"]]
    best = []
    for turn, result in enumerate(found[own]):
        taken = [all_seconds(found[peer][turn]) for peer in peers if found[peer][turn]["reached"]]
        if taken and result["reached"]:
            best.append(all_seconds(result) / min(taken))
    figures["seconds over the best of fastai's"] = best
    return found, figures


def loading(seeds: list[int]) -> tuple[Results, Figures]:
    own, *peers = names = ["ours-loading", "fastai-loading", "torchvision-loading"]
    found = turns(names, seeds)
    figures: Figures = {}
    for peer in peers:
        figures[f"images a second over {peer}"] = ratios(found, own, peer, lambda r: float(r["images_a_second"]))
    return found, figures


def photographs(seeds: list[int]) -> tuple[Results, Figures]:
    """Compares the time to read photographs, and how reading JPEGs at a smaller scale changes pixels and outputs."""
    names = [f"{kind}-{workers}" for kind in PHOTOGRAPHS for workers in ("1-worker", "2-workers")]
    found = {name: [run(name, seed, "photographs.py") for seed in seeds] for name in names}
    figures: Figures = {}
    for name, results in found.items():
        for what in ("cpu", "wall"):
            for peer in ("fastai", "torchvision", "timm"):
                figures[f"{name}: {what} time over {peer}"] = [r[what]["ours"] / r[what][peer] for r in results]
    found["agreement"] = [run("agreement", 0, "photographs.py")]
    for name, differences in found["agreement"][0].items():
        figures |= {f"{name}: {what}": [value] for what, value in differences.items()}
    return found, figures


KINDS = {
    "loading": loading,
    "photographs": photographs,
    "fine_tune": fine_tune,
    "bare_loop": bare_loop,
    "frozen": frozen,
    "views": views,
    "accuracy": accuracy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=KINDS, default=[*KINDS], help="comparisons to run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one turn per seed")
    options = parser.parse_args()
    path = Path("demo/benchmarks.json")
    path.parent.mkdir(exist_ok=True)
    for kind in options.what:
        runs, figures = KINDS[kind](options.seeds)
        for name, values in figures.items():
            spread = f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "none"
            print(f"{name}: {spread}, {len(values)} of {len(options.seeds)} turns", flush=True)
        report = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**report, kind: {"figures": figures, "runs": runs}}, indent=1))


if __name__ == "__main__":
    main()
