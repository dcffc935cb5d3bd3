"""Sound profiles: what they hold, how they inherit, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard import presets
from outboard.errors import InvalidInput, NotFound


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", presets.names())
def test_every_profile_is_complete_and_within_its_ranges(name: str) -> None:
    """Each key has a number in its documented range, in the documented order."""
    preset = presets.load(name)
    assert tuple(preset.values) == tuple(presets.KEYS)
    assert all(presets.KEYS[k].low <= v <= presets.KEYS[k].high for k, v in preset.values.items())
    assert preset.name == name
    assert preset.description


def test_the_promised_profiles_are_there() -> None:
    """The base first, then the genres."""
    assert presets.names()[0] == "balanced"
    promised = "pop hip-hop trap electronic electro-house rock metal r&b acoustic lo-fi cinematic"
    assert set(promised.split()) <= set(presets.names())


def test_every_key_says_what_it_is() -> None:
    """Unit, range and meaning are documented; ranges are no points."""
    for key, fact in presets.KEYS.items():
        assert fact.meaning, key
        assert fact.low < fact.high, key


def test_a_file_changes_what_it_names_and_inherits_the_rest(tmp_path: Path) -> None:
    """A child over a parent file over a named profile; relative names are beside the file."""
    write(tmp_path, "parent", 'extends = "rock"\n[mix]\nmud_cut_db = 1.0\nair_gain_db = -9.0\n')
    child = write(tmp_path, "child", 'extends = "parent.toml"\n[mix]\nmud_cut_db = 2.0\n')
    preset, rock = presets.load(child), presets.load("rock")
    assert (preset["mix.mud_cut_db"], preset["mix.air_gain_db"]) == (2.0, -9.0)
    rest = set(presets.KEYS) - {"mix.mud_cut_db", "mix.air_gain_db"}
    assert all(preset[key] == rock[key] for key in rest)


def test_a_file_that_extends_nothing_builds_on_the_base(tmp_path: Path) -> None:
    """No file needs to be complete."""
    preset = presets.load(write(tmp_path, "own", "[master]\ncorrection = 0.1\n"))
    assert preset["master.correction"] == 0.1
    assert preset["mix.mud_hertz"] == presets.load("balanced")["mix.mud_hertz"]


def test_a_circle_is_told(tmp_path: Path) -> None:
    """`extends` that comes back to itself names the way."""
    write(tmp_path, "b", 'extends = "a.toml"')
    with pytest.raises(InvalidInput, match="a -> b -> a") as caught:
        presets.load(write(tmp_path, "a", 'extends = "b.toml"'))
    assert caught.value.reason == "PRESET_INVALID"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mix]\nmud_cutt_db = 1.0", "mix.mud_cut_db"),
        ("[mix]\nmud_cut_db = 9.0", "0 to 3 dB"),
        ("[mix]\nmud_cut_db = nan", "0 to 3 dB"),
        ('[mix]\nmud_cut_db = "much"', "must be a number"),
        ("[mix]\nmud_cut_db = true", "must be a number"),
        ("[mix\n", "no TOML"),
        ("extends = 3", "strings"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """Unknown key (with the nearest), out of range (with the range), no number, no TOML."""
    with pytest.raises(InvalidInput, match=words) as caught:
        presets.load(write(tmp_path, "own", text))
    assert caught.value.reason == "PRESET_INVALID"


def test_an_unknown_name_suggests_the_nearest() -> None:
    """A slip of the finger is answered with the name that was meant."""
    with pytest.raises(NotFound, match="electronic") as caught:
        presets.load("electonic")
    assert caught.value.reason == "PRESET_UNKNOWN"


@pytest.mark.parametrize("name", ["../presets/balanced", "/etc/passwd", "", "missing.toml"])
def test_names_reach_no_other_files(name: str) -> None:
    """A name is a name, not a path; a file that is not there is said so."""
    with pytest.raises(NotFound):
        presets.load(name)


def test_numbers_from_the_wire_are_checked_and_completed() -> None:
    """A stage gets numbers: missing ones come from the base, wrong ones are refused together."""
    preset = presets.with_values("mine", {"mix.mud_cut_db": 1.5})
    assert preset.name == "mine"
    assert preset["mix.mud_cut_db"] == 1.5
    assert preset["mix.mud_hertz"] == presets.load("balanced")["mix.mud_hertz"]
    with pytest.raises(InvalidInput) as caught:
        presets.with_values("mine", {"mix.mud_cut_db": 99.0, "mix.nothing": 0.0})
    assert {v.field for v in caught.value.violations} == {"mix.mud_cut_db", "mix.nothing"}
