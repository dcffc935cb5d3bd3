"""Onsets per second and vocal dominance: what they count, what they do not, and that gain does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import decode

RATE = 48000
Audio = np.ndarray


def struck(per_second: float, seconds: float = 10.0) -> Audio:
    """Noise strokes over a chord."""
    generator, time_s = np.random.default_rng(1), np.arange(round(seconds * RATE)) / RATE
    mono = 0.05 * sum(np.sin(2 * np.pi * hertz * time_s) for hertz in (220.0, 277.0, 330.0, 1320.0, 3300.0, 6600.0))
    for stroke in range(round(per_second * seconds)):
        at = round((stroke + 0.3) / per_second * RATE)
        after = np.arange(min(4800, mono.size - at))
        mono[at : at + after.size] += 0.4 * generator.standard_normal(after.size) * np.exp(-after / RATE * 60.0)
    return np.tile(mono, (2, 1)).astype(np.float32)


@pytest.mark.parametrize("per_second", [0.5, 1.0, 2.0, 4.0, 6.0])
def test_strokes_are_counted(per_second: float) -> None:
    """Strokes over a chord, within a tenth."""
    counted = analyze(struck(per_second), RATE).onsets_per_second
    assert counted == pytest.approx(per_second, rel=0.1), f"{counted} per second"


def test_what_does_not_begin_is_not_counted() -> None:
    """A held chord has no onsets; silence and less than a second have none that could be measured."""
    assert analyze(struck(0.0), RATE).onsets_per_second == 0.0
    assert analyze(np.zeros((2, RATE), np.float32), RATE).onsets_per_second is None
    assert analyze(struck(4.0, 0.5), RATE).onsets_per_second is None
    assert analyze(np.zeros((2, RATE), np.float32), RATE).vocal_dominance is None


@settings(deadline=None, max_examples=8)
@given(gain_db=st.floats(-30.0, 6.0), rate=st.sampled_from([4000, 8000, 44100, 96000]))
def test_gain_changes_neither(gain_db: float, rate: int) -> None:
    """Both are ratios: at any level, and at any rate that is analysed, the same numbers within 2 %."""
    song = struck(3.0, 3.0)
    one, other = (analyze((song * gain).astype(np.float32), rate) for gain in (0.5, 0.5 * 10.0 ** (gain_db / 20.0)))
    assert one.onsets_per_second == pytest.approx(other.onsets_per_second, rel=0.02, abs=0.4)
    assert one.vocal_dominance == pytest.approx(other.vocal_dominance, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_vocal_dominance_rises_with_the_voice(seed: int) -> None:
    """A song with its voice taken out, at half, as it is, and at double: each step higher, the first at most 0.13."""
    demo = synthesise(seed, 10.0)
    song, voice = sum(demo.stems.values()), demo.stems["vocals"]
    found = [analyze((song + more * voice).astype(np.float32), demo.sample_rate_hertz).vocal_dominance
             for more in (-1.0, -0.5, 0.0, 1.0)]  # fmt: skip
    assert found == sorted(found), found
    assert found[0] <= 0.13, found
    assert found[2] >= 1.3 * found[0], found


def test_real_voices_dominate_and_instruments_do_not(test_data: Path) -> None:
    """A released song with a singer and a generated one over 0.2, an instrumental and a bass-heavy mix under 0.13."""
    found = {}
    for name in ("references/karissa_hobbs", "references/kevin_macleod", "songs/yue_pop"):
        path = next((test_data / name).parent.glob(f"{Path(name).name}*"))
        with decode(path, sample_rate_hertz=None) as file:
            rate, start = file.sample_rate_hertz, 40 * file.sample_rate_hertz
            found[name] = analyze(np.array(file.array[:, start : start + 15 * rate]), rate).vocal_dominance
    samples, rate = soundfile.read(test_data / "ground_truth/potassium/mixture.flac", dtype="float32", stop=15 * RATE)
    bassy = analyze(np.ascontiguousarray(samples.T), rate).vocal_dominance
    assert min(found["references/karissa_hobbs"], found["songs/yue_pop"]) > 0.2, found
    assert max(found["references/kevin_macleod"], bassy) < 0.13, (found, bassy)
