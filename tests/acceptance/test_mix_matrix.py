"""What a mix must reach, on supplied stems, on the songs' separated stems and on demo songs; `-s` shows the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import decode
from services.separator.engines import SeparationSettings
from services.separator.separate import separate
from tests.mixes import POTASSIUM, SEPARATED, check_faders, check_mix, figures, mixed
from tests.songs import SONGS

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]
RATE = 48_000


def song_of(path: Path) -> np.ndarray:
    with decode(path, sample_rate_hertz=RATE) as decoded:
        audio = np.array(decoded.array)
    return np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio


def stems_of(song: np.ndarray) -> dict[str, np.ndarray]:
    parts = list(separate([song], RATE, SeparationSettings(engine="spectral")))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def test_supplied_stems(test_data: Path, tmp_path: Path) -> None:
    """The whole multitrack: all guard-rails, masking down by a fifth, and the same bytes again."""
    stems = {name: song_of(test_data / "stems" / "potassium" / f"{name}.m4a") for name in POTASSIUM}
    frames = min(stem.shape[1] for stem in stems.values())
    stems = {name: stem[:, :frames] for name, stem in stems.items()}
    first = mixed(stems, POTASSIUM, None, tmp_path)
    print(figures(first))
    check_mix(first)
    assert np.array_equal(first.audio, mixed(stems, POTASSIUM, None, tmp_path).audio), "two runs differ"


@pytest.mark.parametrize("name", SONGS)
def test_separated_stems(name: str, test_data: Path, tmp_path: Path) -> None:
    """Every song: all guard-rails, masking down by a fifth, the balance within 3 dB of the song's."""
    song = song_of(test_data / "songs" / name)
    found = mixed(stems_of(song), SEPARATED, song, tmp_path)
    print(figures(found))
    check_mix(found)
    check_faders(found)


@pytest.mark.parametrize("seed", [200, 201])
def test_demo_songs(seed: int, tmp_path: Path) -> None:
    """The demo song's own stems as a separator would give them: rails hold, sides above the cap are gone."""
    demo = synthesise(seed, 60.0)
    found = mixed(demo.stems, SEPARATED, demo.song, tmp_path)
    print(figures(found))
    rails = {rail.name: rail for rail in found.report.rails}
    assert all(rail.held for rail in rails.values()), rails
    check_faders(found)
