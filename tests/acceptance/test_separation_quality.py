"""What the spectral engine must reach, on demo songs that it was not tuned on and on a real clip with its truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.separation import Row, demo_clips, judge, musdb_clips, separated, summarise

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

# Tuned on 0 to 7.
UNSEEN_SEEDS = range(100, 108)
HPSS = "drums over HPSS"


def missed(rows: list[Row]) -> list[str]:
    return [f"{row.name}: {row.ours:.2f} against {row.theirs:.2f} {row.unit}" for row in rows if row.holds is False]


def test_unseen_demo_songs() -> None:
    """Vocals 6 dB over the mixture and 1.5 dB over a band-pass on average and nowhere under it; drums over mixture
    and HPSS; bass and other no more than 0.5 dB under the mixture; all by SI-SDR."""
    rows = [row for clip in demo_clips(UNSEEN_SEEDS, 20.0) for row in judge(clip, separated(clip, "spectral"))]
    assert not missed(rows + summarise(rows))


def test_real_clips(test_data: Path) -> None:
    """The same on every clip of the ground truth, but for drums over HPSS."""
    rows = [row for clip in musdb_clips(test_data / "ground_truth") for row in judge(clip, separated(clip, "spectral"))]
    assert rows
    assert not [line for line in missed(rows + summarise(rows)) if HPSS not in line]


@pytest.mark.xfail(reason="a clip without a kick: see Separation in docs/benchmarks.md", strict=True)
def test_drums_of_real_clips_over_hpss(test_data: Path) -> None:
    """Drums over HPSS's percussive part on every clip of the ground truth."""
    rows = [row for clip in musdb_clips(test_data / "ground_truth") for row in judge(clip, separated(clip, "spectral"))]
    assert not [line for line in missed(rows) if HPSS in line]
