"""Files of tensors that are never half written."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, which appears whole or not at all, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file({**tensors}, partial, metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
