"""How exactly a repository's networks are computed, read off their configurations without a server's libraries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DEFAULT_PRECISION = "fp32"
_PARAMETER = re.compile(r'key:\s*"precision"\s*value\s*{\s*string_value:\s*"(\w+)"')


def precision(repository: Path, networks: Iterable[str], configuration: str = "") -> str:
    """How the networks of a model of the registry are computed, say "tf32"; where they differ "fp32+tf32".

    Args:
        repository: Triton's model repository.
        networks: names of the model's folders in it.
        configuration: the server's ``--model-config-name``; empty for the plain configurations.
    """
    return "+".join({_of(repository / network, configuration): None for network in networks})


def _of(folder: Path, configuration: str) -> str:
    # As the server chooses: the configuration of that name, or the plain one where a model has none of that name.
    named = folder / "configs" / f"{configuration}.pbtxt"
    path = named if configuration and named.is_file() else folder / "config.pbtxt"
    found = _PARAMETER.search(path.read_text()) if path.is_file() else None
    return found.group(1) if found else DEFAULT_PRECISION
