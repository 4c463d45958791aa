"""Checks that the Hugging Face Hub can be reached before timm downloads from it."""

import os
from collections.abc import Mapping
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def check_weights_reachable(cfg: Mapping[str, Any]) -> None:
    """Raises ConnectionError if the weights of a timm configuration are on a Hub that cannot be reached.

    A download itself would try again for about a minute before it fails.
    """
    local = cfg.get("source") == "local-dir" or os.environ.get("TIMM_USE_OLD_CACHE")
    if cfg.get("hf_hub_id") and not local:
        name = cfg.get("hf_hub_filename")
        named = () if name is None else (name, f"{name.rpartition('.')[0]}.safetensors")
        check_reachable(cfg["hf_hub_id"], *named, *_WEIGHTS)


def check_reachable(repository: str, *names: str) -> None:
    """Raises ConnectionError if none of the files is cached and the Hub cannot be reached.

    Args:
        repository: Owner and name of a repository, optionally followed by `@` and a revision.
        names: Files of which one is needed.
    """
    repository, _, revision = repository.partition("@")
    cached = (huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    if any(isinstance(path, str) for path in cached):
        return
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, names[0]))
    except HfHubHTTPError:
        return  # the Hub has answered
    except Exception as error:  # of the HTTP client, which differs between releases of huggingface_hub
        raise ConnectionError(f"{huggingface_hub.hf_hub_url(repository, names[0])}: {error}") from error
