"""Hashes of Python objects by content, for the keys of cached features."""

import hashlib
import inspect
import pickle
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import PIL
import torch
import torchvision
from torch import Tensor, nn

from ...optim.freezing import FREEZE_MARKERS
from ...utils.modules import uncompiled

# Attributes of a module that its hash does not depend on: hooks, training mode, freeze markers, those of compilation.
_COMPILATION = {"_compiled_call_impl", "_is_torch_compile", "_compile_kwargs"}
_IGNORED_ATTRIBUTES = {*vars(nn.Module()), *FREEZE_MARKERS, *_COMPILATION} - {
    "_parameters",
    "_buffers",
    "_modules",
}
# Folders of this package whose code computes images or features.
_CODE_FOLDERS = "callbacks/feature_cache", "data", "encoders", "heads", "layers", "models", "utils"


def fingerprint(*objects: object) -> str:
    """Returns a hash of the content of objects, as 32 hexadecimal digits.

    Tensors are hashed by their values, modules by their classes, attributes, parameters and buffers, regardless of
    training mode and frozen parameters, classes and functions by their source code, without the code that this calls.
    The source code of this package and the versions of the libraries that compute images and features are included.

    Raises:
        ValueError: If an object cannot be pickled, such as a lambda.

    >>> fingerprint(nn.Dropout(0.1)) == fingerprint(nn.Dropout(0.1)) != fingerprint(nn.Dropout(0.2))
    True
    """
    digest = _Digest()
    digest.write(_code_and_versions())
    hasher = _Hasher(digest, pickle.HIGHEST_PROTOCOL)
    hasher.fast = True  # without a memo, so that equal strings hash alike, one object or two
    try:
        hasher.dump(objects)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"Expected objects that can be pickled, to compute their fingerprint, but: {error}") from error
    return digest.hexdigest()


@cache
def _code_and_versions() -> bytes:
    """Returns the versions of the libraries, and the code of this package, that compute images and features."""
    versions = f"{PIL.__version__} {version('timm')} {torch.__version__} {torchvision.__version__}"
    return versions.encode() + b"".join(path.read_bytes() for path in _source_files(_CODE_FOLDERS))


def _source_files(folders: Iterable[str]) -> list[Path]:
    """Returns the source files in folders of this package.

    Raises:
        FileNotFoundError: If a folder has none, since its code would be missing from fingerprints without notice.
    """
    root = Path(__file__).parents[2]
    files = {folder: sorted((root / folder).rglob("*.py")) for folder in folders}
    if missing := [folder for folder, found in files.items() if not found]:
        raise FileNotFoundError(f"Expected source files in {root / missing[0]}, but there are none")
    return [path for found in files.values() for path in found]


# of classes and functions, since finding it parses their files
_SOURCES: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


class _Digest:
    """File object that hashes what is written to it."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Hasher(pickle.Pickler):
    """Pickler that writes the content of tensors, modules, classes and functions to a digest."""

    def __init__(self, digest: _Digest, protocol: int) -> None:
        super().__init__(digest, protocol)
        self._digest = digest

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            values = obj.detach().cpu().contiguous().flatten()
            self._digest.write(values.view(torch.uint8).numpy() if values.numel() else b"")
            return str, (f"{obj.dtype} {tuple(obj.shape)}",)
        if isinstance(obj, (torch.dtype, torch.layout, torch.memory_format)):
            return str, (str(obj),)  # pickle may find their names in different modules
        if isinstance(obj, nn.Module):
            obj = uncompiled(obj)
            return dict, (
                [type(obj), *((k, _ordered(v)) for k, v in vars(obj).items() if k not in _IGNORED_ATTRIBUTES)],
            )
        if isinstance(obj, (type, FunctionType)):
            for part in inspect.getmro(obj) if isinstance(obj, type) else [obj]:
                if part not in _SOURCES:
                    _SOURCES[part] = _source(part)
                self._digest.write(_SOURCES[part])
        return NotImplemented


def _ordered(value: object) -> object:
    """Returns a set as a sorted list, since the order of sets differs between processes."""
    return sorted(map(repr, value)) if isinstance(value, (set, frozenset)) else value


def _source(obj: Any) -> bytes:
    """Returns the source code of a class or function, or its bytecode if there is no source file."""
    try:
        return inspect.getsource(obj).encode()
    except (OSError, TypeError):
        functions = [obj, *vars(obj).values()] if isinstance(obj, type) else [obj]
        return repr([_bytecode(f.__code__) for f in functions if isinstance(f, FunctionType)]).encode()


def _bytecode(code: CodeType) -> list[object]:
    constants = [_bytecode(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return [code.co_code, code.co_names, constants]
