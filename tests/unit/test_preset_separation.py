"""The table ``separation`` of a sound profile: what it may say, how it inherits, and what is said about a wrong one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from outboard import presets
from outboard.errors import InvalidInput
from outboard.presets.separation import ENGINES, SETTINGS, SeparationChoice
from outboard.rpc.convert import from_message
from outboard.rpc.presets import preset_message
from outboard.settings import Settings
from services.separator import engines as separator
from services.separator.deployment import engines


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_its_engines_stems_and_keys_are_the_separators() -> None:
    """What a profile is held to is what the separator offers: engines with their stem counts, and every setting of a
    request.
    """
    offered = {name: engine.info.stem_counts for name, engine in engines(Settings()).items()}
    assert dict(ENGINES) == offered
    fields = [field.name for field in dataclasses.fields(separator.SeparationSettings)]
    assert fields == list(SETTINGS) == [field.name for field in dataclasses.fields(SeparationChoice)]


def test_profiles_that_come_with_outboard_leave_separation_to_the_machine() -> None:
    """Which engine is the best depends on where it runs: a genre does not say."""
    assert all(presets.load(name).separation.said == {} for name in presets.names())


def test_what_it_says_is_inherited_key_by_key(tmp_path: Path) -> None:
    """A child over a parent: what it says counts, the rest is the parent's, and an empty engine takes the parent's
    back.
    """
    parent = '[separation]\nengine = "htdemucs_6s"\nstem_count = 6\nshifts = 2\nresidual = "raw"\n'
    write(tmp_path, "parent", f'extends = "rock"\n{parent}')
    child = presets.load(write(tmp_path, "child", 'extends = "parent.toml"\n[separation]\nshifts = 3\noverlap = 0.5\n'))
    assert child.separation.said == {
        "engine": "htdemucs_6s", "stem_count": 6, "overlap": 0.5, "shifts": 3, "residual": "raw",
    }  # fmt: skip
    assert child["mix.mud_cut_db"] == presets.load("rock")["mix.mud_cut_db"]
    back = presets.load(write(tmp_path, "back", 'extends = "parent.toml"\n[separation]\nengine = ""\n'))
    assert "engine" not in back.separation.said
    assert back.separation.stem_count == 6


def test_it_crosses_the_wire_whole(tmp_path: Path) -> None:
    """The message has every key as it was said, a 0 too; a profile that says nothing has no block."""
    text = '[separation]\nengine = "spectral"\nstem_count = 2\noverlap = 0\nshifts = 0\nseed = -1\n'
    own = presets.load(write(tmp_path, "own", text + 'residual = "raw"\nspeed = "exact"\n'))
    message = preset_message(own)
    assert from_message(message.separation, SeparationChoice) == own.separation
    assert message.separation.HasField("shifts")
    assert not preset_message(presets.load("pop")).HasField("separation")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('engine = "htdemuks_ft"', "did you mean 'htdemucs_ft'"),
        ("engine = 4", "engine must be a name, not 4"),
        ("stem_count = 3", "stem_count is 3, must be one of 2, 4, 5, 6"),
        ("stem_count = 4.0", "stem_count must be a whole number, not 4"),
        ("stems = 4", "did you mean 'stem_count'"),
        ("overlap = 0.8", "overlap is 0.8, must be 0 to 0.75"),
        ("overlap = nan", "overlap is nan, must be 0 to 0.75"),
        ("shifts = 11", "shifts is 11, must be 0 to 10"),
        ("shifts = true", "shifts must be a number, not True"),
        ('seed = "x"', "seed must be a number, not 'x'"),
        ('residual = "folded"', "must be one of fold, raw; did you mean 'fold'"),
        ("speed = 1", "speed is 1, must be one of exact, balanced, fast"),
        ('engine = "spectral"\nstem_count = 6', "the engine 'spectral' separates into 2, 4 stems, not 6"),
    ],
)
def test_a_wrong_table_is_told_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """Unknown engine or key (with the nearest), out of range (with the range), no number, no word of the list, an
    engine without so many stems.
    """
    with pytest.raises(InvalidInput) as caught:
        presets.load(write(tmp_path, "own", f"[separation]\n{text}\n"))
    assert caught.value.reason == "PRESET_INVALID"
    assert words in caught.value.message
    assert caught.value.violations[0].field.startswith("separation.")


def test_a_count_that_the_inherited_engine_lacks_is_told(tmp_path: Path) -> None:
    """Each file is fine by itself, both together are not."""
    write(tmp_path, "parent", '[separation]\nengine = "htdemucs"\n')
    with pytest.raises(InvalidInput, match=r"child\.toml: the engine 'htdemucs' separates into 2, 4 stems, not 5"):
        presets.load(write(tmp_path, "child", 'extends = "parent.toml"\n[separation]\nstem_count = 5\n'))


@pytest.mark.parametrize(
    ("text", "words"), [("[seperation]\nengine = 1", "separation.engine"), ("separation = 4", "must be a table")]
)
def test_a_table_of_another_name_or_kind_is_told(tmp_path: Path, text: str, words: str) -> None:
    """A slip in the table's own name suggests it; something else than a table is refused."""
    with pytest.raises(InvalidInput, match=words):
        presets.load(write(tmp_path, "own", text))


def test_every_fault_is_told(tmp_path: Path) -> None:
    """Three wrong keys, one of them of the console, are three violations."""
    with pytest.raises(InvalidInput) as caught:
        presets.load(write(tmp_path, "own", '[separation]\nengine = "x"\nshifts = -1\n[mix]\nmud_q = 99\n'))
    assert {violation.field for violation in caught.value.violations} == {
        "separation.engine", "separation.shifts", "mix.mud_q",
    }  # fmt: skip
