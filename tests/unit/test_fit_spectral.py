"""The fit of the weights-free engine: it sees what the engine does, and finds numbers that do it better."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.fit_spectral import Numbers, example, fit, quality, standing, tables, varied
from benchmarks.separation import demo_clips, sdr_db, separated
from outboard.audio.stems import FOUR_STEMS


def test_the_fit_judges_what_the_engine_does_and_improves_on_nothing() -> None:
    """SDR in the spectrogram is that of the stems to half a dB (synthesis loses what is no spectrogram of anything);
    eight rounds from nothing gain at least 1 dB; the tables are Python with a row per stem and cue."""
    clip = next(demo_clips(range(1), 4.0))
    song = example(clip)
    with torch.no_grad():
        seen = quality(standing(), song)[0].tolist()
    heard = separated(clip, "spectral")
    expected = [sdr_db(clip.stems[name], heard[name]) for name in FOUR_STEMS]
    assert seen == pytest.approx(expected, abs=0.5), f"{seen} against {expected} dB"
    nothing = Numbers(torch.zeros(4, 19), torch.zeros(4, 16))
    fitted = fit([song], nothing, 8)
    with torch.no_grad():
        before, after = (float(quality(numbers, song).mean()) for numbers in (nothing, fitted))
    assert after > before + 1.0, f"{before:.2f} to {after:.2f} dB"
    names: dict[str, dict[str, tuple[float, ...]]] = {}
    exec(tables(fitted), names)
    assert len(names["CUE_WEIGHTS"]) == 19
    assert {len(row) for row in names["PRIORS"].values()} == {16}


def test_a_varied_mixture_is_the_sum_of_its_stems() -> None:
    """Whatever was done to the stems."""
    clip = next(demo_clips(range(1), 2.0))
    for seed in range(6):
        other = varied(clip, np.random.default_rng(seed))
        assert np.allclose(other.mixture, sum(other.stems.values()), atol=1e-5)
        assert not np.allclose(other.mixture, clip.mixture, atol=1e-3)
