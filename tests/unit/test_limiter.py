"""The limiter: a ceiling that holds by construction, cleanliness, and independence of blocks and levels."""

from __future__ import annotations

import numpy as np
import pedalboard
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.hostile import HOSTILE, hostile
from outboard.audio.limiter import (
    LimiterSettings,
    apply_reduction,
    mean_reduction_db,
    reduction_curve,
    render,
    smooth_reduction,
)
from outboard.audio.loudness import integrated_loudness
from outboard.audio.peak_envelope import STEP_FRAMES, kaiser_phases, peak_envelope, step_count
from outboard.audio.peak_guard import DIP_MS, PeakReading, deepen, read_peaks
from outboard.audio.spool import Spool
from outboard.audio.true_peak import measure_true_peak

RATE_HERTZ = 48000
Array = NDArray[np.float32]


def limit(audio: Array, gain_db: float, settings: LimiterSettings, rate: int = RATE_HERTZ) -> tuple[Array, Array]:
    """The limited signal and its reduction curve."""
    with Spool(1) as spool:
        peaks = peak_envelope(audio, spool)
    curve = reduction_curve(peaks, rate, gain_db, settings, Spool)
    return np.concatenate(list(render(audio, gain_db, curve)), axis=1), curve


def sine(hertz: float, seconds: float, peak_dbfs: float = 0.0) -> Array:
    time = np.arange(round(seconds * RATE_HERTZ)) / RATE_HERTZ
    return np.tile(10 ** (peak_dbfs / 20) * np.sin(2 * np.pi * hertz * time), (2, 1)).astype(np.float32)


def guarded(array: Array, rate: int, ceiling_dbtp: float) -> tuple[Array, PeakReading]:
    """Dipped until all three meters read at most the ceiling, as a delivery does it on encoded files."""
    current, dips = array, None
    for _ in range(8):
        reading = read_peaks(current, rate, ceiling_dbtp, Spool)
        if reading.true_peak_dbtp is None or reading.true_peak_dbtp <= ceiling_dbtp + 0.02:
            break
        with Spool(1) as deeper, Spool(1) as smooth:
            dips = np.array(deepen(dips, reading, ceiling_dbtp, deeper))
            blocks = list(render(array, 0.0, smooth_reduction(dips, rate, DIP_MS, smooth)))
            current = np.concatenate(blocks, axis=1)
    return current, reading


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_guarded_limiter_holds_its_ceiling_on_three_meters(name: str, rate: int) -> None:
    """Driven by 6 dB, hostile signals stay within 0.05 dB of the ceiling on every meter of the contract."""
    limited, _ = limit(hostile(name, rate), 6.0, LimiterSettings(ceiling_dbtp=-1.0), rate)
    held, _ = guarded(limited, rate, -1.0)
    meter = measure_true_peak(held)
    readings = (meter.soxr_dbtp, meter.kaiser_dbtp, meter.annex2_dbtp)
    assert max(reading for reading in readings if reading is not None) <= -0.95, f"{name}: {readings} dBTP"


@pytest.mark.parametrize("hertz", [41.0, 50.0, 110.0])
def test_bass_stays_clean(hertz: float) -> None:
    """A low sine driven by 6 dB into the limiter has at most -60 dB of harmonic distortion."""
    limited, _ = limit(sine(hertz, 3.0, -1.0), 6.0, LimiterSettings())
    spectrum = np.abs(np.fft.rfft(limited[0, RATE_HERTZ : 2 * RATE_HERTZ] * np.hanning(RATE_HERTZ))) ** 2

    def energy(k: int) -> float:
        centre = round(k * hertz)
        return float(spectrum[centre - 3 : centre + 4].sum())

    distortion_db = 10 * np.log10(sum(energy(k) for k in range(2, 30)) / energy(1))
    assert distortion_db <= -60.0, f"THD {distortion_db:.1f} dB at {hertz} Hz"


def drum_loop(hits_per_second: float, decay_ms: float) -> tuple[Array, list[int]]:
    """Kicks and noise strokes in turn over a chord, ten seconds; and where they begin."""
    generator = np.random.default_rng(3)
    time = np.arange(10 * RATE_HERTZ) / RATE_HERTZ
    mono = 0.08 * sum(np.sin(2 * np.pi * hertz * time) for hertz in (110.0, 220.0, 277.0, 330.0, 440.0))
    begins = [round(k * RATE_HERTZ / hits_per_second) for k in range(1, round(9 * hits_per_second))]
    after = np.arange(RATE_HERTZ // 5) / RATE_HERTZ
    kick = np.sin(2 * np.pi * 50.0 * after)
    for number, begin in enumerate(begins):
        stroke = kick if number % 2 else 0.4 * generator.standard_normal(after.size)
        mono[begin : begin + after.size] += stroke * np.exp(-after * 1000 / decay_ms) * (1 - np.exp(-after * 2000))
    return np.tile(mono / np.abs(mono).max(), (2, 1)).astype(np.float32), begins


def punch_db(audio: Array, begins: list[int]) -> float:
    """Mean over strokes of the peak of the first 30 ms over the level from 70 to 10 ms before."""
    peaks = [float(np.abs(audio[:, begin : begin + 1440]).max()) for begin in begins]
    levels = [float(np.sqrt(np.square(audio[:, begin - 3360 : begin - 480]).mean())) for begin in begins]
    return float(np.mean(20 * np.log10(np.array(peaks) / np.array(levels))))


@pytest.mark.parametrize(("hits_per_second", "decay_ms"), [(2.0, 40.0), (4.0, 80.0), (8.0, 30.0)])
def test_drums_keep_more_punch_than_behind_a_plain_limiter(hits_per_second: float, decay_ms: float) -> None:
    """Driven 6 dB into pedalboard's limiter, drums stand at least 0.3 dB less above what is before them than behind
    ours at equal loudness.
    """
    audio, begins = drum_loop(hits_per_second, decay_ms)
    plain = pedalboard.BrickwallLimiter(ceiling_db=-1.0, true_peak=True)(audio * np.float32(10 ** (5 / 20)), RATE_HERTZ)
    wanted = integrated_loudness(plain, RATE_HERTZ)
    assert wanted is not None
    gain_db = 2.5
    for _ in range(4):
        limited, _ = limit(audio, gain_db, LimiterSettings(ceiling_dbtp=-1.0))
        reached = integrated_loudness(limited, RATE_HERTZ)
        assert reached is not None
        gain_db += 1.2 * (wanted - reached)
    assert reached == pytest.approx(wanted, abs=0.05)
    more = punch_db(limited, begins) - punch_db(plain, begins)
    assert more >= 0.3, f"{more:.2f} dB more punch"


def test_a_lone_transient_is_not_held() -> None:
    """After a single click the gain is soon back: a quarter of a second later under 0.1 dB is reduced."""
    audio = sine(1000.0, 1.0, -12.0)
    audio[:, 10000] = 1.8
    _, curve = limit(audio, 0.0, LimiterSettings())
    assert curve[0, 10000 // STEP_FRAMES] >= 6.0
    later = float(curve[0, (10000 + RATE_HERTZ // 4) // STEP_FRAMES])
    assert later <= 0.1, f"{later:.2f} dB of reduction 250 ms after a click"


def test_what_stays_under_the_ceiling_is_not_touched() -> None:
    """Below the ceiling the limiter is a wire: same samples to rounding, no reduction."""
    audio = sine(440.0, 1.0, -6.0)
    limited, curve = limit(audio, 0.0, LimiterSettings())
    assert not curve.any()
    assert np.array_equal(limited, audio)


def test_an_impulse_stays_where_it_is() -> None:
    """Latency is compensated: a peak at frame n stays at frame n."""
    audio = np.zeros((2, 20000), dtype=np.float32)
    audio[:, 7777] = 2.0
    limited, _ = limit(audio, 0.0, LimiterSettings())
    assert int(np.abs(limited[0]).argmax()) == 7777
    assert limited.shape == audio.shape


def test_channels_share_one_gain() -> None:
    """A peak in the left channel lowers the right one by the same factor, so the image does not move."""
    audio = sine(440.0, 1.0, -12.0)
    audio[0, 20000:21000] *= 6.0
    limited, _ = limit(audio, 0.0, LimiterSettings())
    loud = np.abs(audio[0]) > 1e-3
    assert np.allclose(limited[0, loud] / audio[0, loud], limited[1, loud] / audio[1, loud], rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.floats(0.0, 24.0), st.integers(0, 2**32 - 1))
def test_the_curve_is_never_less_than_the_need(frames: int, gain_db: float, seed: int) -> None:
    """Bridging, release and smoothing only ever add reduction: gain times interpolated peak is at most the ceiling."""
    generator = np.random.default_rng(seed)
    audio = (generator.standard_normal((1, frames)) * generator.random((1, frames)) ** 4).astype(np.float32)
    with Spool(1) as spool:
        peaks = peak_envelope(audio, spool)
    curve = reduction_curve(peaks, RATE_HERTZ, gain_db, LimiterSettings(), Spool)
    need = 20 * np.log10(np.maximum(peaks, 1e-12)) + gain_db + 1.0
    worst = float((need - curve).max())
    assert curve.shape == (1, step_count(frames))
    assert worst <= 1e-4, f"the need stands {worst:.6f} dB above the curve"


def test_blocks_join_without_a_seam() -> None:
    """The curve of a long signal equals that of the same signal behind a silence that shifts every block border."""
    generator = np.random.default_rng(2)
    audio = generator.standard_normal((1, 600_000)).astype(np.float32) * 0.4
    shift = 16 * STEP_FRAMES * 1000
    shifted = np.concatenate([np.zeros((1, shift), dtype=np.float32), audio], axis=1)
    limited, _ = limit(audio, 6.0, LimiterSettings())
    limited_later, _ = limit(shifted, 6.0, LimiterSettings())
    # The first half step has no neighbour to interpolate from, so it keeps its own gain.
    difference = np.abs(limited_later[:, shift:] - limited)[:, STEP_FRAMES:]
    assert difference.max() <= 2e-7, f"{difference.max():.2e}"


def test_two_runs_give_identical_samples() -> None:
    """Determinism: nothing depends on anything but the input."""
    audio = hostile("noise_bursts", RATE_HERTZ)
    assert np.array_equal(limit(audio, 9.0, LimiterSettings())[0], limit(audio, 9.0, LimiterSettings())[0])


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 9])
def test_tiny_signals(frames: int) -> None:
    """Signals shorter than any window are limited too, and keep their length."""
    audio = np.full((2, frames), 1.5, dtype=np.float32)
    limited, curve = limit(audio, 0.0, LimiterSettings())
    held, reading = guarded(limited, RATE_HERTZ, -1.0)
    assert held.shape == audio.shape
    assert reading.true_peak_dbtp is None or reading.true_peak_dbtp <= -0.95
    assert mean_reduction_db(curve) >= 0.0


def test_silence_reads_no_peak() -> None:
    """Digital silence has no true peak and is left alone."""
    audio = np.zeros((1, 5000), dtype=np.float32)
    assert read_peaks(audio, RATE_HERTZ, -1.0, Spool).true_peak_dbtp is None
    limited, _ = limit(audio, 30.0, LimiterSettings())
    assert not limited.any()


def test_the_guard_reads_what_the_meters_read() -> None:
    """The guard's own reading and the contract's meter agree within 0.005 dB, so what one calls held the other does."""
    audio = hostile("signs", RATE_HERTZ)
    reading = read_peaks(audio, RATE_HERTZ, -1.0, Spool).true_peak_dbtp
    meter = measure_true_peak(audio).true_peak_dbtp
    assert reading is not None
    assert reading == pytest.approx(meter, abs=0.005), f"guard {reading}, meter {meter} dBTP"


def test_progress_is_told_and_may_cancel() -> None:
    """Every loop reports, and an exception from the report ends the work."""
    audio = hostile("square", RATE_HERTZ)
    told: list[float] = []
    with Spool(1) as spool:
        peaks = peak_envelope(audio, spool, told.append)
    curve = reduction_curve(peaks, RATE_HERTZ, 6.0, LimiterSettings(), Spool, told.append)
    list(render(audio, 6.0, curve, told.append))
    assert told
    assert all(0.0 <= fraction <= 1.0 for fraction in told)

    def cancel(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reduction_curve(peaks, RATE_HERTZ, 6.0, LimiterSettings(), Spool, cancel)


def test_smoothing_keeps_dips_deep() -> None:
    """A one-step dip keeps its full depth after smoothing and reaches at most its length to both sides."""
    need = np.zeros((1, 2000), dtype=np.float32)
    need[0, 1000] = 3.0
    with Spool(1) as spool:
        curve = smooth_reduction(need, RATE_HERTZ, 3.0, spool)
    touched = np.flatnonzero(curve[0])
    assert curve[0, 1000] == pytest.approx(3.0, abs=1e-5)
    assert (touched.max() - touched.min()) * STEP_FRAMES / RATE_HERTZ <= 0.008


def test_gain_runs_smoothly_between_steps() -> None:
    """The rendered gain has no jumps: it runs linearly between the centres of control steps."""
    curve = np.zeros((1, 100), dtype=np.float32)
    curve[0, 50:] = 6.0
    gain = apply_reduction(np.ones((1, 800), dtype=np.float32), 0, 0.0, curve)[0]
    assert np.abs(np.diff(gain)).max() <= 0.5 / STEP_FRAMES + 1e-6


def test_the_interpolator_is_the_contracts() -> None:
    """Phase 0 passes the samples themselves, and every phase reproduces a slow sine to 1e-4."""
    phases = kaiser_phases()
    assert phases.shape == (8, 64)
    assert phases[0, 31] == 1.0
    position = np.arange(64) - 31
    for phase in range(8):
        value = float(phases[phase] @ np.cos(0.2 * position))
        assert value == pytest.approx(np.cos(0.2 * phase / 8), abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"ceiling_dbtp": 0.5}, {"look_ahead_ms": 0.0}, {"bridge_ms": -1.0}, {"dip_ms": 0.0}, {"transient_db": -1.0}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    """A ceiling above full scale and times without length are errors, not guesses."""
    with pytest.raises(ValueError, match=r"ceiling|positive|bridge"):
        LimiterSettings(**wrong)
