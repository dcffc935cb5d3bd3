"""New upper bands that a network draws: spliced without harm, the same however they are computed, and never at the
price of a job. The network is a function here; tests/integration/test_triton_restoration.py has the real one.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from scipy import signal

from outboard.audio.band_splice import SEAM_HERTZ
from services.restorer import superresolution
from services.restorer.bandwidth import BandwidthPlan
from services.restorer.settings import AUDIOSR, ENGINES
from services.restorer.superresolution import Drawing, DrawingEngine, Sampling

RATE = 48_000
CUTOFF = 8_000.0
INFO = next(info for info in ENGINES if info.name == AUDIOSR)
SHORT = (122_880, 61_440)  # windows of 2.56 and 1.28 s


def done(audio: np.ndarray) -> Future[np.ndarray]:
    future: Future[np.ndarray] = Future()
    future.set_result(audio)
    return future


def full_band(seconds: float = 6.0, channels: int = 2, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Pink noise in notes that come and go."""
    draw = np.random.default_rng(seed)
    frames = round(seconds * rate)
    spectrum = np.fft.rfft(draw.standard_normal((channels, frames)), axis=1)
    spectrum /= np.sqrt(np.arange(spectrum.shape[1]) + 50.0)
    spectrum[:, 0] = 0.0
    audio = np.fft.irfft(spectrum, frames, axis=1)
    notes = 0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * np.arange(frames) / rate)
    return (0.1 * notes * audio / np.std(audio)).astype(np.float32)


def cut(audio: np.ndarray, cutoff: float = CUTOFF, rate: int = RATE) -> np.ndarray:
    taps = signal.firwin(2001, cutoff, window=("kaiser", 10.0), fs=rate)
    return signal.oaconvolve(audio, taps[None, :], mode="same", axes=1).astype(np.float32)


def noise(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
    """A network that has nothing to do with its input, but is as loud."""
    drawn = np.random.default_rng(drawing.key).standard_normal(window.size)
    return done((drawn * np.std(window)).astype(np.float32))


def drawn(
    audio: np.ndarray,
    draw: superresolution.Draw,
    rate: int = RATE,
    cutoff: float = CUTOFF,
    attempts: tuple[int, ...] = SHORT,
    **more: Any,
) -> np.ndarray:
    how = BandwidthPlan(1.0, "", cutoff, **more)
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    result, told = superresolution.rendered(
        audio, rate, DrawingEngine(INFO, draw), how, power, Sampling(), None, lambda _: None, attempts
    )
    assert result is not None, told
    with result:
        return np.array(result.array)


def band_db(audio: np.ndarray, low: float, high: float, rate: int = RATE) -> float:
    frequencies, power = signal.welch(audio.astype(np.float64), rate, nperseg=4096, axis=-1)
    inside = (frequencies >= low) & (frequencies < high)
    return float(10 * np.log10(np.mean(power[..., inside]) + 1e-30))


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("draw", [noise, lambda window, _: done(-np.roll(window, 7))], ids=["noise", "turned"])
def test_below_the_cutoff_the_stem_stays_as_it_was(rate: int, draw: superresolution.Draw) -> None:
    """Whatever was drawn, at any rate, as many frames come back, and what lies below the cutoff minus the cross-fade is
    the original to -90 dBFS.
    """
    audio = cut(full_band(5.3, rate=rate), rate=rate)
    result = drawn(audio, draw, rate)
    assert result.shape == audio.shape
    low = signal.firwin(4001, CUTOFF - SEAM_HERTZ - 150.0, window=("kaiser", 12.0), fs=rate)
    difference = signal.oaconvolve((result - audio).astype(np.float64), low[None, :], mode="same", axes=1)
    changed_db = 20 * np.log10(max(float(np.max(np.abs(difference))), 1e-12))
    assert changed_db <= -90.0, f"{changed_db:.1f} dBFS"


@pytest.mark.parametrize(("gain", "late", "sign"), [(1.0, 0, 1), (0.25, 0, 1), (1.0, 9, 1), (0.5, -13, -1)])
def test_what_is_drawn_right_comes_back_right(gain: float, late: int, sign: int) -> None:
    """A network that knows the whole band gives it back, though it is quieter, late, or upside down: level and time are
    matched below the cutoff, so every third of an octave around and above the seam is within 1.5 dB of the truth, and
    there is no notch where both meet.
    """
    truth = full_band(6.0)
    audio = cut(truth)
    order: list[int] = []

    def knows(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        number, channel = divmod(len(order), 2)
        order.append(number)
        start = number * (SHORT[0] - superresolution.OVERLAP_FRAMES)
        part = np.zeros(SHORT[0] + 100, np.float32)
        piece = truth[channel, max(0, start - 50) : start + SHORT[0] + 50]
        part[50 * (start == 0) :][: piece.size] = piece
        level = np.max(np.abs(window)) / np.max(np.abs(part))
        return done((sign * gain * level * np.roll(part, late)[50:-50]).astype(np.float32))

    result = drawn(audio, knows)
    for low in 6_000.0 * 2.0 ** (np.arange(6) / 3.0):
        error = band_db(result, low, low * 2 ** (1 / 3)) - band_db(truth, low, low * 2 ** (1 / 3))
        assert abs(error) <= 1.5, f"{low:.0f} Hz: {error:+.2f} dB"
    seam = [
        band_db(result, at, at + 100) - band_db(truth, at, at + 100)
        for at in np.arange(CUTOFF - SEAM_HERTZ, CUTOFF + 400, 100)
    ]
    assert min(seam) >= -3.0, f"a notch of {min(seam):.1f} dB at the seam"


def test_windows_meet_without_a_dip() -> None:
    """Drawings of two windows that have nothing to do with each other keep the new band's level where they cross."""
    audio = cut(full_band(8.0, seed=2))
    result = drawn(audio, noise) - audio
    advance = SHORT[0] - superresolution.OVERLAP_FRAMES
    middle = advance + superresolution.OVERLAP_FRAMES // 2
    around = band_db(result[:, middle - 60_000 : middle + 60_000], 10_000, 16_000)
    at = band_db(result[:, middle - 8_000 : middle + 8_000], 10_000, 16_000)
    assert abs(at - around) <= 3.0, f"{at - around:+.1f} dB where two windows cross"


def test_silence_stays_silent_and_nothing_is_asked_for_it() -> None:
    """Where a stem is silent no band is drawn, and a silent window does not reach the network."""
    audio = cut(full_band(9.0, seed=4))
    audio[:, 3 * RATE :] = 0.0
    asked: list[Drawing] = []

    def draw(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        asked.append(drawing)
        return noise(window, drawing)

    result = drawn(audio, draw)
    assert not np.any(np.abs(result[:, 3 * RATE + 4096 :]) > 1e-5)
    assert len(asked) == 4, "two windows of two channels sound"


def test_noise_is_the_windows_own() -> None:
    """Every window and channel has a key of its own, which depends on the seed: the same bytes again for the same seed,
    others for another, in whatever order the answers come.
    """
    audio = cut(full_band(6.0))
    keys: list[int] = []

    def late(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        keys.append(drawing.key)
        future: Future[np.ndarray] = Future()
        answer = noise(window, drawing).result()
        threading.Timer(0.02 * (4 - len(keys) % 5), lambda: future.set_result(answer)).start()
        return future

    first = drawn(audio, late)
    assert len(set(keys)) == len(keys)
    assert np.array_equal(first, drawn(audio, noise))
    result, _ = superresolution.rendered(
        audio,
        RATE,
        DrawingEngine(INFO, noise),
        BandwidthPlan(1.0, "", CUTOFF),
        0.01,
        Sampling(4),
        None,
        lambda _: None,
        SHORT,
    )
    assert result is not None
    assert not np.array_equal(first, result.array)
    result.close()


@pytest.mark.parametrize("frames", [1, 500, 2049, 61_440, 122_880, 122_881])
def test_any_length(frames: int) -> None:
    """Down to one frame, as many come back."""
    audio = full_band(6.0)[:, :frames]
    result = drawn(cut(audio) if frames > 2001 else audio, noise)
    assert result.shape == audio.shape
    assert np.all(np.isfinite(result))


def test_a_voice_keeps_35_db() -> None:
    """A limit on the new band's energy, as automatic mode sets one for voices, is kept."""
    audio = cut(full_band(5.0))
    result = drawn(audio, noise, limit_db=-36.0)
    kept = 10 * np.log10(np.sum(audio.astype(np.float64) ** 2) / np.sum((result - audio).astype(np.float64) ** 2))
    assert kept >= 35.0, f"{kept:.1f} dB"
