"""Text table of the phases of a run."""

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from ...optim.freezing import user_trainable
from ...optim.param_groups import gather_groups, group_parameters, norm_parameters
from .plan import PlannedPhase


def phase_table(pl_module: nn.Module, optimizer: Optimizer, phases: Sequence[PlannedPhase], epoch: float) -> str:
    """Returns a table with a row for each phase: its length, trained modules, parameter count, peak rates and shape."""
    groups, trainable = gather_groups(optimizer), user_trainable(pl_module)
    rows = [("phase", "epochs", "steps", "trains", "parameters", "peak lr", "shape")]
    for i, phase in enumerate(phases):
        trained = [p for p in group_parameters(groups[phase.first :]) if id(p) in trainable]
        names = _module_names(pl_module, {id(p) for p in trained})
        frozen = {id(p) for p in group_parameters(groups[: phase.first])} & trainable
        norms = [p for p in norm_parameters(pl_module) if id(p) in frozen] if phase.norm == "train" else []
        rates = dict.fromkeys([phase.rates[phase.first], phase.rates[-1]])
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rows.append(
            (
                str(i + 1),
                f"{(phase.stop - phase.start) / epoch:.3g}",
                str(phase.stop - phase.start),
                shown + (" + norm layers" if norms else ""),
                f"{sum(p.numel() for p in [*trained, *norms]):,}",
                " to ".join(f"{rate:.2g}" for rate in rates),
                type(phase.shape).__name__,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["Phases of training", *lines])


def _module_names(module: nn.Module, trained: set[int], prefix: str = "") -> list[str]:
    """Returns the names of the largest modules whose parameters all train, and of trained parameters outside them."""
    ids = [id(p) for p in module.parameters()]
    if ids and all(i in trained for i in ids):
        return [prefix or "everything"]
    dot = f"{prefix}." if prefix else ""
    own = [f"{dot}{name}" for name, p in module.named_parameters(recurse=False) if id(p) in trained]
    return [
        *own,
        *(name for key, child in module.named_children() for name in _module_names(child, trained, dot + key)),
    ]
