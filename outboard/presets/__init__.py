"""Sound profiles: named sets of numbers for console and master, as TOML files that inherit from each other.

A profile is resolved once, when a job is created; stages receive its numbers and never its name. A file of one's own
looks like those beside this module:

    extends = "balanced"           # a profile's name, or a file relative to this one
    description = "One sentence."

    [mix.vocals]
    presence_db = 2.0              # key "mix.vocals.presence_db"

What a file does not set comes from what it extends (from "balanced" where it extends nothing). Slots may be given to
plugins, see `outboard.presets.plugins`; a table says how to separate, see `outboard.presets.separation`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outboard.audio.plugins.facts import PluginChoice
from outboard.errors import InvalidInput, NotFound, Violation
from outboard.presets.keys import KEYS, Key
from outboard.presets.plugins import plugin_faults, read_plugins
from outboard.presets.separation import (
    ENGINES,
    NOTHING_SAID,
    SETTINGS,
    SeparationChoice,
    count_fault,
    nearest,
    read_separation,
    separation_faults,
)

__all__ = ["BASE_NAME", "KEYS", "Key", "Preset", "SeparationChoice", "load", "names", "nearest", "with_values"]

BASE_NAME = "balanced"
"""The profile that every other one differs from."""
_FOLDER = Path(__file__).parent
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Preset:
    """A resolved profile.

    Attributes:
        name: of the profile, for reports.
        values: every key of `KEYS` with its number, in their order.
        description: one sentence for a person.
        plugins: VST3 plugins by slot; an empty name takes one out that a base has.
        separation: how it wants a song separated; none of the profiles that come with Outboard says anything.
    """

    name: str
    values: dict[str, float] = field(hash=False)
    description: str = ""
    plugins: dict[str, PluginChoice] = field(default_factory=dict, hash=False)
    separation: SeparationChoice = NOTHING_SAID

    def __getitem__(self, key: str) -> float:
        return self.values[key]


@dataclass(frozen=True)
class _File:
    """One parsed file: what it sets itself, and what it builds on."""

    values: dict[str, float]
    extends: str | None
    description: str
    plugins: dict[str, PluginChoice]
    separation: dict[str, object]


def names() -> tuple[str, ...]:
    """Profiles that come with Outboard, the base first."""
    rest = sorted(path.stem for path in _FOLDER.glob("*.toml") if path.stem != BASE_NAME)
    return (BASE_NAME, *rest)


def load(name_or_path: str) -> Preset:
    """A profile by name, or from a file of one's own (anything that ends in ``.toml``).

    Raises:
        NotFound: PRESET_UNKNOWN: no profile of that name (the nearest is suggested), or no such file.
        InvalidInput: PRESET_INVALID: not TOML, an unknown key (the nearest is suggested), a value out of range or no
            number, an engine that does not separate into so many stems, or an ``extends`` that comes back to itself.
    """
    layers: list[_File] = []
    chain: list[Path] = []
    path = _locate(name_or_path, None)
    while True:
        if path in chain:
            circle = " -> ".join(p.stem for p in [*chain[chain.index(path) :], path])
            raise _invalid(f"extends runs in a circle: {circle}", "extends")
        chain.append(path)
        layers.append(_read(path))
        parent = layers[-1].extends
        if parent is None:
            if path == _FOLDER / f"{BASE_NAME}.toml":
                break
            parent = BASE_NAME
        path = _locate(parent, path.parent)
    values: dict[str, float] = {}
    plugins: dict[str, PluginChoice] = {}
    settings: dict[str, object] = {}
    for layer in reversed(layers):
        values.update(layer.values)
        plugins.update(layer.plugins)
        settings.update(layer.separation)
    separation = SeparationChoice(**settings)  # type: ignore[arg-type]
    if wrong := count_fault(separation.engine, separation.stem_count, ENGINES.get(separation.engine, ())):
        raise _invalid(f"{chain[0].name}: {wrong}", "separation.stem_count")
    return Preset(chain[0].stem, {key: values[key] for key in KEYS}, layers[0].description, plugins, separation)


def with_values(
    name: str,
    values: Mapping[str, float],
    base: str = BASE_NAME,
    plugins: Mapping[str, PluginChoice] | None = None,
    separation: SeparationChoice = NOTHING_SAID,
) -> Preset:
    """A profile from numbers that came over the wire: checked, and completed where keys are missing.

    Args:
        name: of the profile, for reports; empty: the base's.
        values: numbers by key.
        base: the profile that comes with Outboard from which the missing keys are taken.
        plugins: by slot, over those of the base.
        separation: over that of the base. Its engine is for the separator to know.

    Raises:
        InvalidInput: PRESET_INVALID: an unknown key (the nearest is suggested) or a value out of range (which is told).
        NotFound: PRESET_UNKNOWN: no profile is called like the base.
    """
    violations = [v for key in sorted(values) if (v := _violation(key, values[key])) is not None]
    violations += plugin_faults(plugins or {}) + separation_faults(separation.said, "separation")
    if violations:
        raise InvalidInput(violations[0].description, reason="PRESET_INVALID", violations=violations)
    below = load(base)
    numbers = {key: float(values.get(key, below[key])) for key in KEYS}
    return Preset(
        name or below.name,
        numbers,
        plugins={**below.plugins, **(plugins or {})},
        separation=separation.over(below.separation),
    )


def _locate(name_or_path: str, beside: Path | None) -> Path:
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        path = path if path.is_absolute() or beside is None else beside / path
        if not path.is_file():
            raise NotFound(f"there is no preset file {path.name!r}", reason="PRESET_UNKNOWN", field="preset")
        return path.resolve()
    if name_or_path not in names():
        hint = nearest(name_or_path, names())
        raise NotFound(f"there is no preset {name_or_path!r}{hint}", reason="PRESET_UNKNOWN", field="preset")
    return _FOLDER / f"{name_or_path}.toml"


def _read(path: Path) -> _File:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise _invalid(f"{path.name} is larger than {_MAX_FILE_BYTES // 1024} KiB: that is no preset", "preset")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"{path.name} is no TOML: {error}", "preset") from error
    extends, description = content.pop("extends", None), content.pop("description", "")
    if not (extends is None or isinstance(extends, str)) or not isinstance(description, str):
        raise _invalid(f"{path.name}: extends and description must be strings", "extends")
    plugins, violations = read_plugins(content.pop("plugins", {}))
    separation, wrong = read_separation(content.pop("separation", {}))
    flat = dict(_flatten(content, ""))
    violations = [v for key, value in flat.items() if (v := _violation(key, value)) is not None] + violations + wrong
    if violations:
        raise InvalidInput(f"{path.name}: {violations[0].description}", reason="PRESET_INVALID", violations=violations)
    return _File({key: float(value) for key, value in flat.items()}, extends, description, plugins, separation)


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _violation(key: str, value: object) -> Violation | None:
    """What is wrong with one entry, if anything."""
    if key not in KEYS:
        return Violation(
            key, f"unknown key {key!r}{nearest(key, (*KEYS, *(f'separation.{name}' for name in SETTINGS)))}"
        )
    known = KEYS[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Violation(key, f"{key} must be a number, not {value!r}")
    if not known.low <= value <= known.high:  # a NaN is not in range either
        unit = f" {known.unit}" if known.unit else ""
        return Violation(key, f"{key} is {value:g}, must be {known.low:g} to {known.high:g}{unit}")
    return None


def _invalid(message: str, path: str) -> InvalidInput:
    return InvalidInput(message, reason="PRESET_INVALID", field=path)
