"""Plots of a classifier's predictions: the confusion matrix and the worst predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...drawing.figure import label, new_figure
from ..outputs import EvaluationOutputs, OutputCollector
from ..sample_order import SampleOrder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ConfusionMatrixPlot(OutputCollector):
    """Plots the confusion matrix of a test to `confusion_matrix.png`: counts, shaded by fraction of the true class.

    That of `trainer.validate` is `val_confusion_matrix.png`. Of several data loaders, each has a picture with its
    number, such as `confusion_matrix_0.png`. Pictures are passed to every logger that accepts images.

    Requires matplotlib, which the extra `plots` installs.
    """

    def write(self, collected: EvaluationOutputs) -> Path:
        """Plots the matrix and returns the path of the picture."""
        names, targets = [label(name) for name in collected.names], class_targets(collected)
        predicted = collected.predictions.argmax(dim=1)
        counts = torch.zeros(len(names), len(names), dtype=torch.long)
        counts.index_put_((targets, predicted), torch.ones_like(targets), accumulate=True)
        fraction = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        side = min(2.5 + 0.55 * len(names), 24)
        figure = new_figure(side + 1, side)
        axes = figure.add_subplot()
        image = axes.imshow(fraction.numpy(), cmap="Blues", vmin=0, vmax=1)
        for row, column in ((r, c) for r in range(len(names)) for c in range(len(names)) if counts[r, c]):
            shade = "white" if fraction[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=shade)
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        correct = int(counts.diagonal().sum())
        axes.set_title(f"{correct} of {len(targets)} correct ({correct / len(targets):.1%})")
        figure.colorbar(image, label="fraction of the true class")
        return _save(figure, collected.output_path("confusion_matrix.png"))


class WorstPredictionsPlot(OutputCollector):
    """Plots the test images, or pairs, with the lowest probability of the true class to `worst_predictions.png`.

    Those of `trainer.validate` are in `val_worst_predictions.png`. Of several data loaders, each has a picture with its
    number, such as `worst_predictions_0.png`. Pictures are passed to every logger that accepts images.

    Requires matplotlib, which the extra `plots` installs.

    Args:
        folder: Output folder; by default that of the trainer's logs.
        count: Number of images or pairs.

    Raises:
        ValueError: If the images cannot be read again from the data set, as that is iterable-style or forms batches.
    """

    def __init__(self, folder: str | Path | None = None, count: int = 16) -> None:
        super().__init__(folder)
        self.count = count

    def check_order(self, order: SampleOrder) -> None:
        """Raises ValueError unless samples can be read again by their index."""
        if not order.is_known:
            raise ValueError(
                "Expected a `DataLoader` that forms batches of a map-style data set, from which the worst images are "
                "read again, but the data set is iterable-style or forms its own batches"
            )

    def write(self, collected: EvaluationOutputs) -> Path:
        """Plots the images and returns the path of the picture."""
        targets = class_targets(collected)
        probability = collected.predictions.gather(1, targets[:, None]).flatten()
        worst = probability.argsort()[: self.count].tolist()
        columns = min(len(worst), 4)
        rows = -(-len(worst) // columns)
        figure = new_figure(3 * columns, 3.4 * rows)
        for position, i in enumerate(worst):
            axes = figure.add_subplot(rows, columns, position + 1)
            *images, _ = collected.dataset[collected.indices[i]]
            image = torch.cat(images, dim=-1)
            axes.imshow(image[:3].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            predicted = int(collected.predictions[i].argmax())
            title = f"{collected.names[predicted]} {collected.predictions[i, predicted]:.0%}"
            axes.set_title(label(f"{title}, is {collected.names[int(targets[i])]}"), fontsize=9)
            axes.set_xlabel(label(" | ".join(Path(file).name for file in collected.files(i))), fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
        return _save(figure, collected.output_path("worst_predictions.png"))


def class_targets(collected: EvaluationOutputs) -> Tensor:
    """Returns targets as class indices `(n,)`.

    Raises:
        ValueError: If the targets are not one class per sample.
    """
    targets = collected.targets
    if targets is not None and targets.ndim == 2 and targets.shape == collected.predictions.shape:
        if torch.allclose(targets.sum(dim=1).float(), torch.ones(len(targets)), atol=1e-2):
            return targets.argmax(dim=1)
    elif targets is not None and targets.ndim == 1 and not targets.is_floating_point():
        return targets.long()
    raise ValueError("Expected one class per sample to plot, but the targets are not class indices or probabilities")


def _save(figure: "Figure", path: Path) -> Path:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return path
