"""How exactly a repository's networks are computed, read off their configurations without a server's libraries."""

from __future__ import annotations

import re
from pathlib import Path

from outboard.models.htdemucs.variants import variants_of

DEFAULT_PRECISION = "fp32"
_PARAMETER = re.compile(r'key:\s*"precision"\s*value\s*{\s*string_value:\s*"(\w+)"')


def precision(repository: Path, model: str, configuration: str = "") -> str:
    """How the networks of a model of the registry are computed, say "tf32"; where they differ "fp32+tf32".

    Args:
        repository: Triton's model repository.
        model: name in the registry, one of the HTDemucs family.
        configuration: the server's ``--model-config-name``; empty for the plain configurations.
    """
    return "+".join({_of(repository / variant.name, configuration): None for variant in variants_of(model)})


def _of(folder: Path, configuration: str) -> str:
    # As the server chooses: the configuration of that name, or the plain one where a model has none of that name.
    named = folder / "configs" / f"{configuration}.pbtxt"
    path = named if configuration and named.is_file() else folder / "config.pbtxt"
    found = _PARAMETER.search(path.read_text()) if path.is_file() else None
    return found.group(1) if found else DEFAULT_PRECISION
