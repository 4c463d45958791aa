"""Rank-zero-first calls and error propagation across ranks. Every function is collective: all ranks must call it."""

from collections.abc import Callable
from typing import TypeVar

import lightning as L

T = TypeVar("T")


def broadcast_from_rank_zero(trainer: L.Trainer, function: Callable[[], T]) -> T:
    """Calls a function on rank zero and returns its result on every rank; an error is raised on every rank."""
    result = rank_zero_first(trainer, lambda: function() if trainer.is_global_zero else None)
    return trainer.strategy.broadcast(result)  # type: ignore[return-value]


def rank_zero_first(trainer: L.Trainer, function: Callable[[], T]) -> T:
    """Calls a function on rank zero, then on the other ranks; an error on rank zero is raised on every rank."""
    results: list[T] = []
    error: Exception | None = None
    if trainer.is_global_zero:
        try:
            results = [function()]
        except Exception as caught:  # any error, as the other ranks wait for the broadcast
            error = caught
    error = trainer.strategy.broadcast(error)
    if error is not None:
        raise error
    return results[0] if results else function()


def propagate_errors(trainer: L.Trainer, function: Callable[[], object]) -> None:
    """Calls a function on all ranks at once; if it fails on one rank, every rank raises.

    Raises:
        RuntimeError: If the function failed on another rank only.
    """
    error: Exception | None = None
    try:
        function()
    except Exception as caught:  # any error, as the other ranks wait for the reduction
        error = caught
    any_failed = trainer.strategy.reduce_boolean_decision(error is not None, all=False)
    if error is not None:
        raise error
    if any_failed:
        raise RuntimeError("Expected all ranks to succeed, but another rank failed; see the error on that rank")
