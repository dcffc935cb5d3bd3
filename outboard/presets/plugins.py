"""Plugins in a sound profile: which VST3 plugin takes which slot of the console.

    [plugins.compressor]                 # every slot of that label
    name = "RoughRider3"                 # of its file, without .vst3; "" takes an inherited one out
    [plugins.vocals_bus.insert]          # a kind of strip, a bus, or the mix; "insert" is a slot of its own
    name = "ZamEQ2"
    parameters = { boost_cut_1_db = 2.0, frequency_1_hz = 3000.0, mode = "a word" }

Which labels and places there are, the console knows; here only the form is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outboard.audio.plugins.facts import PluginChoice, choice_faults
from outboard.errors import Violation

MOST_PLUGINS = 64
"""Slots that one profile may give to plugins."""


def read_plugins(table: object) -> tuple[dict[str, PluginChoice], list[Violation]]:
    """Plugins by slot from the table ``plugins`` of a file, and what is wrong with it."""
    found: dict[str, PluginChoice] = {}
    wrong: list[Violation] = []
    if not isinstance(table, dict):
        return {}, [Violation("plugins", "plugins must be a table of slots")]
    for slot, entry in _slots(table, ""):
        plugin, faults = _plugin(entry, f"plugins.{slot}")
        wrong += faults
        if plugin is not None:
            found[slot] = plugin
    return found, wrong + plugin_faults(found)


def plugin_faults(plugins: Mapping[str, PluginChoice]) -> list[Violation]:
    """What is wrong with plugins by slot, wherever they came from; an empty name takes an inherited plugin out."""
    if len(plugins) > MOST_PLUGINS:
        return [Violation("plugins", f"a preset has at most {MOST_PLUGINS} plugins, not {len(plugins)}")]
    wrong: list[Violation] = []
    for slot, plugin in sorted(plugins.items()):
        if plugin.name:
            wrong += choice_faults(plugin.name, plugin.parameters, plugin.choices, f"plugins.{slot}")
    return wrong


def _slots(table: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """(slot, its table): a table that names a plugin is a slot, one of other tables is a place."""
    found: list[tuple[str, Any]] = []
    for key, entry in table.items():
        if (
            isinstance(entry, dict)
            and "name" not in entry
            and entry
            and all(isinstance(e, dict) for e in entry.values())
        ):
            found += _slots(entry, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", entry))
    return found


def _plugin(entry: object, path: str) -> tuple[PluginChoice | None, list[Violation]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return None, [Violation(path, f"{path} must be a table with a name")]
    unknown = sorted(set(entry) - {"name", "parameters"})
    parameters = entry.get("parameters", {})
    if unknown or not isinstance(parameters, dict):
        text = f"{path} has the keys name and parameters" + (f", not {unknown[0]!r}" if unknown else "")
        return None, [Violation(path, text)]
    wrong = [
        Violation(f"{path}.parameters.{key}", f"{key} must be a number or a word, not {value!r}")
        for key, value in parameters.items()
        if not isinstance(value, int | float | str)
    ]
    numbers = {key: float(value) for key, value in parameters.items() if isinstance(value, int | float)}
    choices = {key: value for key, value in parameters.items() if isinstance(value, str)}
    return PluginChoice(entry["name"], numbers, choices), wrong
