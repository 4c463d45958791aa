"""A short text that tells things apart by what they are made of."""

import hashlib
import inspect
import pickle
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import PIL
import torch
import torchvision
from torch import Tensor, nn

from ...optim.freezing import FREEZE_MARKERS

# what a module has beside what it was built from: hooks, modes, what is frozen and what is compiled
_PASSING = {*vars(nn.Module()), *FREEZE_MARKERS, "_compiled_call_impl"} - {"_parameters", "_buffers", "_modules"}
# Folders of this package whose code makes images or features.
_ROOMS = "callbacks/feature_cache", "data", "encoders", "heads", "layers", "models", "utils"


def fingerprint(*things: object) -> str:
    """Returns 32 hexadecimal digits that change with anything that the things are made of.

    Tensors count by their values, modules by their classes, attributes, parameters and buffers, whether they train or
    not; of classes and functions the source code counts, but not what that calls in turn. This package's code and the
    versions of the libraries that images and features are made with count too.

    Raises:
        ValueError: If something cannot be pickled, such as a lambda.

    >>> fingerprint(nn.Dropout(0.1)) == fingerprint(nn.Dropout(0.1)) != fingerprint(nn.Dropout(0.2))
    True
    """
    digest = _Digest()
    digest.write(_makers())
    hasher = _Hasher(digest, pickle.HIGHEST_PROTOCOL)
    hasher.fast = True  # equal strings count alike, whether they are one object or two
    try:
        hasher.dump(things)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"Expected what can be pickled, to tell it from others, but: {error}") from error
    return digest.hexdigest()


@cache
def _makers() -> bytes:
    """Returns the versions of libraries and this package's code that images and features are made by."""
    versions = f"{PIL.__version__} {version('timm')} {torch.__version__} {torchvision.__version__}"
    return versions.encode() + b"".join(path.read_bytes() for path in _source_files(_ROOMS))


def _source_files(rooms: Iterable[str]) -> list[Path]:
    """Returns the source files of folders of this package; a folder without any would go unnoticed in fingerprints."""
    root = Path(__file__).parents[2]
    files = {room: sorted((root / room).rglob("*.py")) for room in rooms}
    if missing := [room for room, found in files.items() if not found]:
        raise FileNotFoundError(f"Expected source files in {root / missing[0]}, but there are none")
    return [path for found in files.values() for path in found]


class _Digest:
    """A file that is written to be hashed."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Hasher(pickle.Pickler):
    def __init__(self, digest: _Digest, protocol: int) -> None:
        super().__init__(digest, protocol)
        self._digest = digest
        self._sources: dict[Any, bytes] = {}  # reading them is slow

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            values = obj.detach().cpu().contiguous().flatten()
            self._digest.write(values.view(torch.uint8).numpy() if values.numel() else b"")
            return str, (f"{obj.dtype} {tuple(obj.shape)}",)
        if isinstance(obj, (torch.dtype, torch.layout, torch.memory_format)):
            return str, (str(obj),)  # they count as of whichever module is found to name them
        if isinstance(obj, nn.Module):
            return dict, ([type(obj), *((k, _ordered(v)) for k, v in vars(obj).items() if k not in _PASSING)],)
        if isinstance(obj, (type, FunctionType)):
            for part in inspect.getmro(obj) if isinstance(obj, type) else [obj]:
                if part not in self._sources:
                    self._sources[part] = _source(part)
                self._digest.write(self._sources[part])
        return NotImplemented


def _ordered(value: object) -> object:
    """Returns a set as a sorted list, as its own order differs from process to process."""
    return sorted(map(repr, value)) if isinstance(value, (set, frozenset)) else value


def _source(thing: Any) -> bytes:
    """Returns the source of a class or function, or its instructions where that was typed in, as in a notebook."""
    try:
        return inspect.getsource(thing).encode()
    except (OSError, TypeError):
        functions = [thing, *vars(thing).values()] if isinstance(thing, type) else [thing]
        return repr([_instructions(f.__code__) for f in functions if isinstance(f, FunctionType)]).encode()


def _instructions(code: CodeType) -> list[object]:
    constants = [_instructions(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return [code.co_code, code.co_names, constants]
