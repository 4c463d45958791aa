"""Keyword arguments that a constructor passes on whole to one callee, which declares and documents them.

Such arguments are written `**loading: Unpack[ImageDataArgs]`, where a `TypedDict` lists their names and types for type
checkers. At run time `Unpack[...]` is `Any`: jsonargparse then follows the keywords through the source to the callee,
and takes types, defaults and descriptions from there. `forwards` does the same for `help()` and notebooks.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:

    class Unpack:
        """`Any`, whatever it is subscripted with."""

        def __class_getitem__(cls, item: Any) -> Any:
            return Any


Class = TypeVar("Class", bound=type)
Keywords = TypeVar("Keywords", bound=Mapping[str, Any])


def forwards(keywords: type, to: Callable[..., Any]) -> Callable[[Class], Class]:
    """Class decorator that shows forwarded arguments in the class's signature and docstring.

    The signature is set on the class alone, not on `__init__`, by which Lightning finds hyperparameters, and not on
    subclasses, which may have other arguments.

    Args:
        keywords: The `TypedDict` of the `**` parameter of the class's `__init__`.
        to: The callee that gets them.

    >>> from typing import TypedDict
    >>> class SizeArgs(TypedDict, total=False):
    ...     size: int
    >>> def resize(*, size: int = 224) -> None: ...
    >>> @forwards(SizeArgs, to=resize)
    ... class Data:
    ...     def __init__(self, root: str, **size: Unpack[SizeArgs]) -> None:
    ...         resize(**size)
    >>> inspect.signature(Data)
    <Signature (root: str, *, size: int = 224) -> None>
    """

    def decorate(cls: Class) -> Class:
        own = inspect.signature(cls)
        kept = [each for each in own.parameters.values() if each.kind != inspect.Parameter.VAR_KEYWORD]
        names = [name for name in keywords.__annotations__ if name not in {each.name for each in kept}]
        declared = inspect.signature(to).parameters
        shown = [declared[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in names]
        type.__setattr__(cls, "__signature__", _OwnSignature(cls, own.replace(parameters=[*kept, *shown])))
        if cls.__doc__ and to.__doc__:
            texts = _argument_texts(to.__doc__)
            cls.__doc__ = _with_arguments(cls.__doc__, [texts[name] for name in names if name in texts])
        return cls

    return decorate


def with_defaults(keywords: type[Keywords], given: Keywords, callee: Callable[..., Any]) -> Keywords:
    """Returns the given keyword arguments and the callee's defaults of the others.

    A task completes them before it saves its hyperparameters, so that a checkpoint does not depend on later defaults.
    """
    declared = inspect.signature(callee).parameters
    return cast(Keywords, {name: declared[name].default for name in keywords.__annotations__} | dict(given))


def init_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the arguments that a class can be made with, those of base classes too where `**kwargs` pass them on."""
    found: dict[str, inspect.Parameter] = {}
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each).parameters
        found = {**parameters, **found}
        if not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: parameter for name, parameter in found.items() if parameter.kind not in variadic}


class _OwnSignature:
    """A signature that subclasses do not inherit."""

    def __init__(self, owner: type, signature: inspect.Signature) -> None:
        self.owner, self.signature = owner, signature

    def __get__(self, instance: object, owner: type | None = None) -> inspect.Signature:
        if owner is not self.owner:
            raise AttributeError("__signature__")
        return self.signature


def _argument_texts(docstring: str) -> dict[str, str]:
    """Returns the entry of each argument in the `Args` section of a Google-style docstring."""
    _, _, rest = inspect.cleandoc(docstring).partition("Args:\n")
    section = textwrap.dedent(rest.partition("\n\n")[0])
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith(" "):
            name = line.partition(":")[0]
        texts[name] = f"{texts[name]}\n{line}" if name in texts else line
    return texts


def _with_arguments(docstring: str, texts: list[str]) -> str:
    """Returns a docstring with entries added to its `Args` section."""
    before, _, rest = inspect.cleandoc(docstring).partition("Args:\n")
    section, gap, after = rest.partition("\n\n")
    added = textwrap.indent("\n".join(texts), "    ")
    return f"{before.rstrip()}\n\nArgs:\n" + "\n".join(part for part in (section, added) if part) + gap + after
