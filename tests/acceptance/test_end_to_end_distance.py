"""The whole pipeline brings a spoiled song back towards the clean one."""

from __future__ import annotations

import warnings

import pytest

from outboard import presets
from outboard.audio.demo import synthesise

pytestmark = pytest.mark.acceptance


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(200, 208))
def test_pipeline_is_nearer_to_the_clean_song_than_input_and_mastering_alone(seed: int) -> None:
    """Loudness-matched multi-resolution STFT distance: at most 0.8 of the input's, and less than mastering alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and auraloss warn at import
        from benchmarks.end_to_end import VARIANTS, judge
    rows = judge(synthesise(seed, 20.0), f"demo {seed}", VARIANTS, presets.load("balanced"))
    judged = [row for row in rows if row.goal is not None]
    assert len(judged) == 2
    for row in judged:
        assert row.holds, f"{row.name}: {row.ours:.3f} / {row.theirs:.3f} = {row.ratio:.3f}, at most {row.goal}"
