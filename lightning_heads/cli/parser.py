"""Parser of the command line whose errors are short and suggest what may have been meant."""

import re
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import wraps
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .commands import COMMANDS

_BASES = (LightningModule, LightningDataModule, Callback, Optimizer, LRScheduler)

# Texts of jsonargparse's errors, which are nearly the same in all of its releases.
_COMMAND = re.compile(r"invalid choice: '(.*)' \(choose|\"subcommand\" to be one of")
_OPTION = re.compile(
    r"(?:Validation failed: )?(?:Subcommand '\w+' does not accept )?(?:nested )?(?:[Oo]ption|[Kk]ey) '([\w.]+)'"
    r"|[Uu]nrecognized arguments: --([\w.]+)"
)
_CLASS = re.compile(r"Expected a dot import path string: (\S+)|module '\S+' has no attribute '(\w+)'")
_TYPE = re.compile(r"Expected a <class '([\w.]+)'>")
_DETAILS = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Expected a (config )?path|Expected a <class 'NoneType'>|"
    r"Not a valid subclass|Subclass types expect|a class path|a dict |$"
)


class HeadsParser(LightningArgumentParser):
    """Parser of a command.

    An error ends with its cause, instead of a list of all arguments before it and of all types that were tried.
    Classes, arguments and commands that look like a misspelled one are suggested.

    Args:
        evaluates: Whether the command evaluates a model, which then needs a checkpoint.
        description: Text that the help begins with.
        **kwargs: Arguments of `LightningArgumentParser`.
    """

    def __init__(
        self, *args: Any, evaluates: bool = False, description: str = "Trains and evaluates tasks.", **kwargs: Any
    ) -> None:
        super().__init__(*args, description=description, **kwargs)
        self.evaluates = evaluates
        self.constructor_error: Exception | None = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(explain(message, [*_names(self)]), ex)

    def print_usage(self, file: Any = None) -> None:
        """Prints the usage, but not before an error, which it would hide behind a list of all arguments."""
        if file is not sys.stderr:
            super().print_usage(file)

    def add_instantiator(self, instantiator: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Adds a function that creates objects, and keeps the last exception of any such function.

        jsonargparse would hide the exception of a constructor in a list of the types that it has tried.
        """

        @wraps(instantiator)
        def keeping_errors(*given: Any, **named: Any) -> Any:
            try:
                return instantiator(*given, **named)
            except Exception as error:
                self.constructor_error = error
                raise

        super().add_instantiator(keeping_errors, *args, **kwargs)


def explain(message: str, names: list[str]) -> str:
    """Shortens an error of jsonargparse to its cause, and suggests names that are close to a misspelled one.

    Args:
        message: The error.
        names: Arguments of the parser that raised it.

    >>> explain("Option 'encodr' is not accepted", ["encoder", "lr"])
    "Option 'encodr' is not accepted; did you mean encoder?"
    """
    if command := _COMMAND.search(message):
        given = command[1] or "none"
        return f"Expected a command, which are {', '.join(COMMANDS)}, but got {given}{_suggestion(given, [*COMMANDS])}"
    if option := _OPTION.match(message):
        name = option[1] or option[2]
        return message + _suggestion(name, names)
    key, _, rest = message.partition("\n")
    lines = [line.strip().removeprefix("- ") for line in rest.splitlines()]
    causes = [line for line in dict.fromkeys(lines) if not _DETAILS.match(line)]
    types = [found[1] for line in causes if (found := _TYPE.match(line))]
    if named := _CLASS.search(message):
        cause = _unknown_class(named[1] or named[2], message)
    elif "Does not validate" not in message:
        return message
    elif len(types) == len(causes):
        value = message.rpartition("Given value: ")[2]
        cause = f"Expected {' or '.join(types)}, but got {value}"
    else:
        cause = " ".join(line for line in causes if not _TYPE.match(line))
    return f"{key} {cause}"


def _unknown_class(name: str, message: str) -> str:
    """Says that there is no class of a name, and suggests subclasses of the classes that an error mentions."""
    expected = [base for base in _BASES if f"{base.__module__}.{base.__qualname__}" in message]
    known = {each.__name__ for base in expected or _BASES for each in _subclasses(base)}
    kind = f"subclass of {' or '.join(base.__name__ for base in expected)}" if expected else "class"
    hint = _suggestion(name, [*known]) or "; a class of your own is given with its module, as in my_module.MyTask"
    return f"Expected the name of a {kind}, but got {name}{hint}"


def _subclasses(base: type) -> Iterator[type]:
    each: type
    for each in base.__subclasses__():
        if each.__name__[0] != "_":
            yield each
        yield from _subclasses(each)


def _names(parser: LightningArgumentParser) -> Iterator[str]:
    """Returns the names of a parser's arguments, and those of its commands."""
    for action in parser._actions:
        yield action.dest
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _names(command)


def _suggestion(name: str, names: list[str]) -> str:
    close = get_close_matches(name, dict.fromkeys(names), n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""
