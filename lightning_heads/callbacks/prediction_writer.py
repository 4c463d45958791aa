"""Predictions as a csv file."""

import csv
import os
from pathlib import Path

from .collected import Collected, CollectingCallback


class PredictionWriter(CollectingCallback):
    """Writes the predictions of `test` and `predict` to a csv file, a line a sample.

    For classes the columns are `file`, `class` (the most probable), `probability` and one for each class; for numbers
    `file` and one for each. The file appears whole or not at all.

    Args:
        folder: Where to write; by default the folder of the trainer's logs.
        filename: Name of the file.
    """

    stages = ("test", "predict")

    def __init__(self, folder: str | Path | None = None, filename: str = "predictions.csv") -> None:
        super().__init__(folder)
        self.filename = filename

    def write(self, collected: Collected) -> Path:
        """Writes the file and returns its path."""
        classes = not collected.names[0].startswith("output_")
        header = ["file", *(["class", "probability"] if classes else []), *collected.names]
        path = collected.folder / self.filename
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for i, values in enumerate(collected.predictions.tolist()):
                best = max(range(len(values)), key=values.__getitem__)
                named = [collected.names[best], f"{values[best]:.6f}"] if classes else []
                writer.writerow([collected.path(i), *named, *(f"{value:.6f}" for value in values)])
        os.replace(partial, path)
        return path
