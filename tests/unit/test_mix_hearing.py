"""What the planner hears: strokes of a kick, sibilants, and whether a sound brings a room of its own."""

from __future__ import annotations

import numpy as np
import pytest

from outboard.audio.reverb import Reverb, ReverbSettings
from services.mixer.hearing import hear

RATE = 48_000


def kicks(seconds: float = 8.0, bpm: float = 120.0) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE % (60.0 / bpm)
    mono = 0.7 * np.exp(-t / 0.06) * np.sin(2 * np.pi * 60.0 * t)
    return np.tile(mono, (2, 1)).astype(np.float32)


def bursts(seconds: float = 8.0) -> np.ndarray:
    """Syllables of 250 ms, 250 ms apart, that fall by 60 dB in 150 ms."""
    t = np.arange(int(seconds * RATE)) / RATE
    gate = np.where(t % 0.5 < 0.25, 1.0, 10.0 ** (-3.0 * (t % 0.5 - 0.25) / 0.15))
    tone = sum(np.sin(2 * np.pi * 220.0 * k * t) / k for k in range(1, 12))
    return np.tile(0.1 * gate * tone, (2, 1)).astype(np.float32)


def test_strokes_of_a_kick_are_found_inside_drums() -> None:
    """Level within 2 dB, rate within a tenth, with hats over them; a bass note that is held has none."""
    hats = (0.05 * np.random.default_rng(1).standard_normal((2, 8 * RATE))).astype(np.float32)
    alone, within = hear(kicks(), RATE).strokes, hear(kicks() + hats, RATE).strokes
    assert alone is not None
    assert within is not None
    assert within.level_dbfs == pytest.approx(alone.level_dbfs, abs=2.0)
    assert within.per_second == pytest.approx(2.0, rel=0.1)
    held = np.tile(0.3 * np.sin(2 * np.pi * 60.0 * np.arange(8 * RATE) / RATE), (2, 1)).astype(np.float32)
    assert hear(held, RATE).strokes is None
    assert hear(hats, RATE).strokes is None


def test_a_reverb_shows_in_the_tails() -> None:
    """Dry syllables fall at once; with a hall 9 dB under them their shortest decays are longer, whatever the level."""
    dry = bursts()
    wet = dry + 0.35 * Reverb(ReverbSettings("hall", 1.8), RATE).process(dry)
    found = [hear(x.astype(np.float32), RATE).tail_seconds for x in (dry, wet, 0.1 * wet)]
    assert found[0] is not None
    assert found[0] < 0.2, found
    assert found[1] is None or found[1] > 0.4, found
    assert found[2] == found[1] or found[2] == pytest.approx(found[1], rel=0.1), found


def test_sibilance_rises_with_the_esses_and_not_with_the_level() -> None:
    """At the de-esser's own meter."""
    voice = bursts()
    hiss = np.random.default_rng(2).standard_normal((2, 8 * RATE))
    spectrum = np.fft.rfft(hiss)
    spectrum[:, : 6_000 * 8] = 0.0
    t = np.arange(8 * RATE) / RATE
    esses = np.fft.irfft(spectrum) * (t % 1.0 < 0.08)
    found = [hear((voice + level * esses).astype(np.float32), RATE).sibilance_db for level in (0.0, 0.03, 0.1)]
    assert found == sorted(found), found
    assert found[2] - found[0] > 20.0, found
    again = hear((0.1 * (voice + 0.1 * esses)).astype(np.float32), RATE).sibilance_db
    assert again == pytest.approx(found[2], abs=0.2)


@pytest.mark.parametrize("frames", [0, 100, RATE])
def test_silence_and_what_is_short_tell_nothing(frames: int) -> None:
    """No strokes, no tail; nothing fails."""
    heard = hear(np.zeros((2, frames), np.float32), RATE)
    assert (heard.strokes, heard.sibilance_db, heard.tail_seconds) == (None, None, None)
