"""What several processes do in turn, or together."""

from collections.abc import Callable
from typing import TypeVar

import lightning as L

T = TypeVar("T")


def from_first(trainer: L.Trainer, make: Callable[[], T]) -> T:
    """Returns what the first process makes; if that fails, all do."""
    found = first_before_others(trainer, lambda: make() if trainer.is_global_zero else None)
    return trainer.strategy.broadcast(found)  # type: ignore[return-value]


def first_before_others(trainer: L.Trainer, make: Callable[[], T]) -> T:
    """Calls something in the first process, then in the others; if the first one fails, all do."""
    made: list[T] = []
    error: Exception | None = None
    if trainer.is_global_zero:
        try:
            made = [make()]
        except Exception as found:  # whatever it is, the others must not wait
            error = found
    error = trainer.strategy.broadcast(error)
    if error is not None:
        raise error
    return made[0] if made else make()


def all_or_none(trainer: L.Trainer, call: Callable[[], object]) -> None:
    """Calls something in all processes at once; if it fails in one, it does in all.

    Raises:
        RuntimeError: If it failed in another process.
    """
    error: Exception | None = None
    try:
        call()
    except Exception as found:  # whatever it is, the others must not wait
        error = found
    failed = trainer.strategy.reduce_boolean_decision(error is not None, all=False)
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("Expected all processes to do their share, but another one failed; see its error")
