"""Start-up: how much longer `import lightning_heads` takes than `import lightning, timm`, alternating, medians.

Run: python tests/benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time

BASE = "import lightning, timm"
OURS = "import lightning, timm, lightning_heads"
ROUNDS = 7


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    for code in (BASE, OURS):
        seconds(code)  # warms the file cache
    times = {code: [] for code in (BASE, OURS)}
    for _ in range(ROUNDS):
        for code in times:
            times[code].append(seconds(code))
    base, ours = (statistics.median(times[code]) for code in (BASE, OURS))
    print(f"{BASE}: {base:.2f} s; with lightning_heads: {ours:.2f} s; difference {ours - base:.2f} s")


if __name__ == "__main__":
    main()
