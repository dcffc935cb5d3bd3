"""Matchering within the guard-rails: what it lifts, widens and turns out of phase is measured and taken back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.song_profile import measure_profile
from outboard.audio.spool import Spool
from services.master.master import master
from services.master.plan import plan
from services.master.reference import Reference
from services.master.reference_matchering import match_by_matchering
from services.master.reference_rails import bounded
from services.master.settings import GuardRails, MasterSettings

RATE_HERTZ = 48_000
RAILS = GuardRails(equalizer_db=9.0)
Array = NDArray[np.float32]


def tilted(audio: Array, power: float, side: float) -> Array:
    """The song with its top lowered (or lifted, power under 0) above 1 kHz, and its sides scaled."""
    spectrum = np.fft.rfft(audio, axis=1)
    hertz = np.fft.rfftfreq(audio.shape[1], 1.0 / RATE_HERTZ)
    shaped = np.fft.irfft(spectrum / (1.0 + (hertz / 1000.0) ** 2) ** power, n=audio.shape[1], axis=1)
    mid, sides = 0.5 * (shaped[0] + shaped[1]), 0.5 * side * (shaped[0] - shaped[1])
    stereo = np.stack([mid + sides, mid - sides])
    return (0.3 * stereo / np.abs(stereo).max()).astype(np.float32)


@pytest.fixture(scope="module")
def mix() -> Array:
    """Dark and narrow."""
    return tilted(synthesise(11, 8.0).clean, 0.6, 0.4)


def test_what_goes_too_far_is_taken_back(mix: Array) -> None:
    """A dark, narrow mix after a bright, wide song: raw, matchering lifts by more than 9 dB. Bounded, it does not,
    sides rise by at most 1.4, correlation stays at 0.1 or above, and a sentence tells how much was taken back.
    """
    reference = Reference("bright", tilted(synthesise(12, 9.0).clean, -0.2, 2.0), RATE_HERTZ)
    before = measure_profile(mix, RATE_HERTZ)
    raw = match_by_matchering(mix, RATE_HERTZ, [reference], Spool)
    wild = measure_profile(raw, RATE_HERTZ)
    assert (wild.mid_db - before.mid_db)[before.mid_db > -90.0].max() > 9.5, "the test's material goes too far"
    kept = bounded(before, raw, RATE_HERTZ, RAILS, Spool, lambda fraction: None)
    after = measure_profile(kept.array, RATE_HERTZ)
    lift = (after.mid_db - before.mid_db)[before.mid_db > -90.0].max()
    assert lift <= 9.1, f"{lift:.2f} dB"
    wider = 10.0 ** ((after.width_db - before.width_db)[before.side_db > -90.0].max() / 20.0)
    assert wider <= 1.45, f"{wider:.2f}"
    assert kept.treatment.lift_db == pytest.approx(max(lift, 0.0), abs=3.0)
    assert kept.treatment.lift_db <= 9.1
    assert kept.treatment.side_gain is not None
    assert kept.treatment.side_gain <= 1.42, kept.treatment
    left, right = kept.array.astype(np.float64)
    assert np.corrcoef(left, right)[0, 1] >= 0.1
    assert "take back up to" in kept.note


def test_what_keeps_the_rails_is_returned_as_it_is(mix: Array) -> None:
    """A match to nearly the same sound is not touched, sample by sample."""
    reference = Reference("alike", tilted(synthesise(11, 8.0).clean, 0.5, 0.44), RATE_HERTZ)
    raw = match_by_matchering(mix, RATE_HERTZ, [reference], Spool)
    kept = bounded(measure_profile(mix, RATE_HERTZ), raw, RATE_HERTZ, RAILS, Spool, lambda fraction: None)
    assert kept.array is raw
    assert "by itself" in kept.note


@pytest.mark.parametrize("engine", ["match", "matchering"])
def test_the_report_checks_the_rails_of_both_engines(engine: str, mix: Array, tmp_path: Path) -> None:
    """LIMITING, CREST_FACTOR, SIDE_GAIN and EQUALIZER are measured and held, whichever engine followed."""
    reference = Reference("bright", tilted(synthesise(12, 9.0).clean, -0.2, 2.0), RATE_HERTZ)
    analysis = analyze(mix, RATE_HERTZ)
    decided = plan(analysis, MasterSettings(intent="reference", engine=engine))
    assert decided.guard_rails.equalizer_db == 9.0
    report = master(mix, RATE_HERTZ, decided, directory=tmp_path, references=[reference], before=analysis).report
    checks = {check.name: check for check in report.checks}
    for name, limit in (("LIMITING", None), ("CREST_FACTOR", None), ("SIDE_GAIN", 1.4), ("EQUALIZER", 9.0)):
        assert checks[name].passed, checks[name]
        assert checks[name].value is not None
        assert limit is None or checks[name].limit == limit
    assert checks["EQUALIZER"].value > 5.0, "the rail is near: it is what holds"
    told = " ".join(report.decisions)
    assert ("take back" in told) == (engine == "matchering"), told


def test_mono_is_bounded_too(mix: Array) -> None:
    """One channel: lifts are held, and there are no sides to speak of."""
    mono = mix.mean(axis=0, keepdims=True).astype(np.float32)
    reference = Reference("bright", tilted(synthesise(12, 9.0).clean, -0.2, 2.0), RATE_HERTZ)
    raw = match_by_matchering(mono, RATE_HERTZ, [reference], Spool)
    kept = bounded(measure_profile(mono, RATE_HERTZ), raw, RATE_HERTZ, replace(RAILS), Spool, lambda fraction: None)
    assert kept.treatment.lift_db <= 9.1
    assert kept.treatment.side_gain is None
