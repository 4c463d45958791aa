"""Attributes that are hyperparameters, too."""

from typing import Any, Generic, TypeVar, cast

from ..utils.plain import plain_values

T = TypeVar("T")


class Hyperparameter(Generic[T]):
    """Attribute of a task; setting it sets the hyperparameter of the same name, if there is one.

    A checkpoint thus has the value that was set last. Values are converted to plain ones; see `plain_values`.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, task: Any, owner: type | None = None) -> T:
        return cast(T, self if task is None else getattr(task, f"_{self.name}"))

    def __set__(self, task: Any, value: T) -> None:
        setattr(task, f"_{self.name}", plain_values(value))
        if self.name in task.hparams:
            task.hparams[self.name] = plain_values(value)
