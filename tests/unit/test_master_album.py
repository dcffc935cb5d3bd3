"""Albums: loudness between songs kept, one chain for all, the loudest at the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.errors import InvalidInput
from services.master.album import MOST_SONGS, plan_in_album, shared_analysis
from services.master.master import master
from services.master.settings import DeliverableSpec, MasterSettings

RATE_HERTZ = 48_000
Array = NDArray[np.float32]
GAINS = (1.0, 0.5, 0.25)


@pytest.fixture(scope="module")
def songs() -> list[Array]:
    """Three songs, each about 6 LU under the one before."""
    return [np.float32(gain) * synthesise(seed, 6.0).clean for seed, gain in zip((41, 42, 43), GAINS, strict=True)]


def test_loudness_between_songs_is_kept_and_one_chain_serves_all(songs: list[Array], tmp_path: Path) -> None:
    """Rendered, the loudest song is at the target and the differences are what they were, within 0.1 LU."""
    album = [analyze(song, RATE_HERTZ) for song in songs]
    settings = MasterSettings(deliverables=(DeliverableSpec(bit_depth="32f"),))
    plans = [plan_in_album(song, album, settings) for song in album]
    assert plans[0].chain == plans[1].chain == plans[2].chain
    before = [song.integrated_lufs or 0.0 for song in album]
    after = []
    for index, (song, plan) in enumerate(zip(songs, plans, strict=True)):
        folder = tmp_path / str(index)
        folder.mkdir()
        report = master(song, RATE_HERTZ, plan, directory=folder, before=album[index]).report
        after.append(report.deliverables[0].integrated_lufs or 0.0)
        assert any("loudest" in decision for decision in report.decisions)
    assert max(after) == pytest.approx(-14.0, abs=0.1), after
    for index in range(1, 3):
        kept = (after[index] - after[0]) - (before[index] - before[0])
        assert abs(kept) <= 0.15, f"{before} -> {after}"


def test_shared_analysis_is_the_mean(songs: list[Array]) -> None:
    """Bands and indices are means, loudness is the loudest's; one song alone is itself."""
    one, other = (analyze(song, RATE_HERTZ) for song in songs[:2])
    shared = shared_analysis([one, other])
    assert shared.integrated_lufs == max(one.integrated_lufs or 0.0, other.integrated_lufs or 0.0)
    expected = 0.5 * (one.band_levels[2].deviation_db + other.band_levels[2].deviation_db)
    assert shared.band_levels[2].deviation_db == pytest.approx(expected)
    alone = shared_analysis([one])
    assert alone == one


def test_silent_songs_and_equal_songs_are_ordinary(songs: list[Array]) -> None:
    """A silent track keeps no target and does not disturb the others; equal songs both go to the target."""
    silent = analyze(np.zeros((2, RATE_HERTZ), np.float32), RATE_HERTZ)
    song = analyze(songs[0], RATE_HERTZ)
    assert plan_in_album(silent, [silent, song], MasterSettings()).target_lufs is None
    assert plan_in_album(song, [silent, song], MasterSettings()).target_lufs == -14.0
    assert plan_in_album(song, [song, song], MasterSettings(target_lufs=-11.0)).target_lufs == -11.0


def test_what_cannot_be_an_album_is_refused(songs: list[Array]) -> None:
    """A reference, and more songs than allowed."""
    song = analyze(songs[0], RATE_HERTZ)
    with pytest.raises(InvalidInput, match="mastered as one") as caught:
        plan_in_album(song, [song], MasterSettings(intent="reference"))
    assert caught.value.reason == "OPTIONS_CONFLICT"
    with pytest.raises(InvalidInput, match="at most"):
        plan_in_album(song, [song] * (MOST_SONGS + 1), MasterSettings())
    quiet = replace(song, integrated_lufs=-60.0)
    assert plan_in_album(quiet, [quiet, song], MasterSettings()).target_lufs == -40.0
