"""Loud masters beside other limiters at equal loudness and true peak: drums stand out further, onsets are as sharp."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.mastering import punch_rows, song_rows
from benchmarks.mastering_measures import songs


def held(name: str, data: Path, seconds: float) -> None:
    """Every row of one song."""
    found = next(song for title, song in songs(data, seconds) if title == name)
    rows = list(song_rows(name, found))
    assert len(rows) == 4
    for row in rows:
        assert row.holds, f"{row.name}: {row.ours:.2f} dB, theirs {row.theirs:.2f} dB"


def test_drums_stand_out_further_than_by_other_limiters(test_data: Path) -> None:
    """At -10 LUFS, on ten seconds of a dense song: crest of drums and sharpness of onsets over those of matchering's
    limiter and of BrickwallLimiter.
    """
    held("acestep_repo_test_track_001", test_data, 10.0)


def test_strokes_keep_their_distance_to_what_is_before_them() -> None:
    """Drums over a chord, driven by 6 dB: at least 0.3 dB more of it than by BrickwallLimiter at equal loudness, by the
    limiter alone and by the loud master.
    """
    for row in punch_rows():
        assert row.holds is not False, f"{row.name}: {row.ours:.2f} dB, theirs {row.theirs:.2f} dB"


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["mixture", "diffrhythm_repo_output", "yue_pop", "yue_rap", "yue_rock"])
def test_drums_stand_out_on_every_song(name: str, test_data: Path) -> None:
    """The same on thirty seconds of every other song."""
    held(name, test_data, 30.0)
