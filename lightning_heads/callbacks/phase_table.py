"""The table that says what trains when."""

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from ..params import gather_groups
from .plan import Stretch


def phase_table(pl_module: nn.Module, optimizer: Optimizer, stretches: Sequence[Stretch]) -> str:
    """Returns lines that say, for each phase, its steps, what trains, how much that is, and at which learning rates."""
    groups = gather_groups(optimizer)
    rows = [("phase", "steps", "trains", "parameters", "learning rates", "shape")]
    for i, stretch in enumerate(stretches):
        trained = [p for members in groups[stretch.first :] for group in members for p in group["params"]]
        names = _module_names(pl_module, {id(p) for p in trained})
        norms = " + norm layers" if stretch.first and stretch.norm == "train" else ""
        rates = sorted({stretch.rates[stretch.first], stretch.rates[-1]})
        rows.append(
            (
                str(i + 1),
                str(stretch.stop - stretch.start),
                ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") + norms,
                f"{sum(p.numel() for p in trained):,}",
                " to ".join(f"{rate:.2g}" for rate in rates),
                type(stretch.shape).__name__,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["Phases of training", *lines])


def _module_names(module: nn.Module, trained: set[int], prefix: str = "") -> list[str]:
    """Names the largest modules all of whose parameters train, and the parameters that lie beside such modules."""
    ids = [id(p) for p in module.parameters()]
    if ids and all(i in trained for i in ids):
        return [prefix or "everything"]
    dot = f"{prefix}." if prefix else ""
    own = [f"{dot}{name}" for name, p in module.named_parameters(recurse=False) if id(p) in trained]
    return [
        *own,
        *(name for key, child in module.named_children() for name in _module_names(child, trained, dot + key)),
    ]
