"""Time of `import lightning_heads`, compared with `import lightning, timm`, and of the command line's help.

Run `python tests/benchmarks/start_up.py`. The commands alternate; figures are medians.
"""

import statistics
import subprocess
import sys
import time

BASE = ["-c", "import lightning, timm"]
OURS = ["-c", "import lightning, timm, lightning_heads as lh; lh.ImageClassifier"]
HELP = ["-m", "lightning_heads", "--help"]
ROUNDS = 7


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    contenders = {"import lightning, timm": BASE, "with lightning_heads": OURS, "lightning-heads --help": HELP}
    for arguments in contenders.values():
        seconds(arguments)  # warms the file cache
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, arguments in contenders.items():
            times[name].append(seconds(arguments))
    for name, taken in times.items():
        print(f"{name}: {statistics.median(taken):.2f} s")


if __name__ == "__main__":
    main()
