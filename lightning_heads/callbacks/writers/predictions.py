"""Writes predictions to a csv file."""

import csv
from pathlib import Path

from lightning.pytorch.trainer.states import TrainerFn

from ...utils.files import open_csv, replacing
from ..outputs import EvaluationOutputs, OutputCollector


class PredictionWriter(OutputCollector):
    r"""Writes the predictions of `test` and `predict` to a csv file, one row per sample.

    For classes the columns are `file`, `class` (the most probable), `probability` and one for each class; for multiple
    labels `file`, `labels` (those above 0.5, separated by spaces) and one for each label; for numbers `file` and one
    for each output. For pairs, `first` and `second` replace `file`. Rows are in the order of the loader's sampler. The
    file of a sample is that in its data set's `paths`, also within `Subset` and `ConcatDataset`, or else its index; of
    an iterable-style data set, rows are numbered in the order in which they arrive. Of several data loaders, each has a
    file with its number, such as `predictions_0.csv`. Bytes of a file name that are not UTF-8 are written as an escape,
    such as `\udce9`. Files are written atomically.

    Args:
        folder: Output folder; by default that of the trainer's logs.
        filename: Name of the csv file.
    """

    stages = (TrainerFn.TESTING, TrainerFn.PREDICTING)

    def __init__(self, folder: str | Path | None = None, filename: str = "predictions.csv") -> None:
        super().__init__(folder)
        self.filename = filename

    def write(self, collected: EvaluationOutputs) -> Path:
        """Writes the file and returns its path."""
        summaries = {"classes": ["class", "probability"], "labels": ["labels"], "numbers": []}[collected.kind]
        files = ["first", "second"] if len(collected.files(0)) > 1 else ["file"]
        header = [*files, *summaries, *collected.names]
        path = collected.output_path(self.filename)
        with replacing(path) as temporary, open_csv(temporary) as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for i, values in enumerate(collected.predictions.tolist()):
                summary = _summary(collected, values)
                writer.writerow([*collected.files(i), *summary, *(f"{value:.6f}" for value in values)])
        return path


def _summary(collected: EvaluationOutputs, values: list[float]) -> list[str]:
    if collected.kind == "numbers":
        return []
    if collected.kind == "labels":
        return [" ".join(name for name, value in zip(collected.names, values, strict=True) if value > 0.5)]
    best = max(range(len(values)), key=values.__getitem__)
    return [collected.names[best], f"{values[best]:.6f}"]
