"""True peak against the EBU signals and against brute force on each of the three meters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from outboard.audio.true_peak import ANNEX_2, TruePeakMeter, measure_true_peak, true_peak_dbtp
from outboard.errors import InvalidInput


def _decibels(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.abs(audio).max()))


def _kaiser_by_scipy(audio: np.ndarray) -> float:
    time = np.arange(-256, 257) / 8
    window = np.i0(8.0 * np.sqrt(np.maximum(0, 1 - (time / 32) ** 2))) / np.i0(8.0)
    return _decibels(signal.upfirdn(np.sinc(time) * window, audio.astype(np.float64), 8, axis=1))


def _soxr_by_soxr(audio: np.ndarray) -> float:
    padded = np.pad(audio, ((0, 0), (400, 400)))
    return _decibels(soxr.resample(padded.T.astype(np.float64), 1, 16, quality="VHQ"))


def _annex_2_by_scipy(audio: np.ndarray) -> float:
    return _decibels(signal.upfirdn(ANNEX_2.T.ravel(), audio.astype(np.float64), 4, axis=1))


def _signals() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(11)
    frames = 40000
    time = np.arange(frames)
    noise = generator.standard_normal((2, frames)) * 0.3
    burst = np.zeros((2, frames))
    burst[1, 20000:20012] = [1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, 1]
    signals = {
        "noise": noise,
        "clipped noise": np.clip(noise * 4, -0.9, 0.9),
        "saturated noise": np.tanh(np.cumsum(noise, axis=1) * 0.2),
        "alternating burst": burst,
        "quarter-rate sine at 45 degrees": np.tile(np.sin(np.pi * time / 2 + np.pi / 4), (2, 1)),
        "sine near Nyquist": np.tile(np.sin(np.pi * time * 0.97), (2, 1)),
        "square": np.sign(np.sin(2 * np.pi * time * np.array([[0.00731], [0.0213]]))),
        "starts and ends at full scale": np.ones((2, frames)),
        "one sample": np.full((1, 1), 0.5),
        "three samples": np.array([[0.9, -0.9, 0.9]]),
        "mono": noise[:1],
    }
    return {name: audio.astype(np.float32) for name, audio in signals.items()}


@pytest.mark.parametrize("name", list(_signals()))
def test_each_meter_reads_what_brute_force_reads(name: str) -> None:
    """What is passed over never holds the peak: 0.001 dB from computing every point, on hostile signals."""
    audio = _signals()[name]
    meter = measure_true_peak(audio)
    for reading, expected in (
        (meter.soxr_dbtp, _soxr_by_soxr(audio)),
        (meter.kaiser_dbtp, _kaiser_by_scipy(audio)),
        (meter.annex2_dbtp, _annex_2_by_scipy(audio)),
    ):
        assert reading is not None
        assert abs(reading - expected) < 1e-3, f"{name}: {reading:.4f}, brute force {expected:.4f} dBTP"
    assert meter.true_peak_dbtp == max(meter.soxr_dbtp, meter.kaiser_dbtp, meter.annex2_dbtp)  # type: ignore[type-var]
    assert meter.sample_peak_dbfs is not None
    assert meter.kaiser_dbtp is not None
    assert meter.kaiser_dbtp >= meter.sample_peak_dbfs - 1e-6


def test_signals_of_ebu_read_their_values(test_data: Path) -> None:
    """EBU Tech 3341 signals 15 to 23 read their true peak within the published tolerance, on every meter."""
    wrong = []
    for name, expected in json.loads((test_data / "loudness" / "expected.json").read_text()).items():
        if "true_peak_dbtp" not in expected:
            continue
        audio, _ = soundfile.read(test_data / "loudness" / name, dtype="float32", always_2d=True)
        meter = measure_true_peak(audio.T)
        low, high = (expected["true_peak_dbtp"] + margin for margin in expected["tolerance_db"])
        for kind in ("soxr_dbtp", "kaiser_dbtp", "annex2_dbtp", "true_peak_dbtp"):
            value = getattr(meter, kind)
            if not low <= value <= high:
                wrong.append(f"{name} {kind}: {value:.3f}, allowed {low:.1f} to {high:.1f}")
    assert not wrong, "\n".join(wrong)


def test_real_music_reads_what_brute_force_reads(test_data: Path) -> None:
    """On 20 s of a mastered and of a saturated song, each meter is within 0.001 dB of computing every point."""
    audio, _ = soundfile.read(
        test_data / "references" / "kevin_macleod_vibe_ace.ogg", dtype="float32", always_2d=True, frames=20 * 44100
    )
    for song in (audio.T, np.tanh(4 * audio.T)):
        meter = measure_true_peak(song)
        assert meter.soxr_dbtp == pytest.approx(_soxr_by_soxr(song), abs=1e-3)
        assert meter.kaiser_dbtp == pytest.approx(_kaiser_by_scipy(song), abs=1e-3)
        assert meter.annex2_dbtp == pytest.approx(_annex_2_by_scipy(song), abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 20000), min_size=1, max_size=10))
def test_readings_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    """Any cutting of the stream gives bit-identical readings."""
    audio = np.random.default_rng(5).standard_normal((2, 50000)).astype(np.float32)
    whole = measure_true_peak(audio)
    pieces = TruePeakMeter(2)
    for piece in np.split(audio, np.minimum(np.cumsum(cuts), audio.shape[1]), axis=1):
        pieces.process(piece)
    pieces.finish()
    for reading in ("soxr_dbtp", "kaiser_dbtp", "annex2_dbtp", "sample_peak_dbfs"):
        assert getattr(whole, reading) == getattr(pieces, reading), reading


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8.0))
def test_random_saturated_noise_reads_what_brute_force_reads(seed: int, drive: float) -> None:
    """The bounds hold on random signals with flat tops, where most points come near the maximum."""
    generator = np.random.default_rng(seed)
    audio = np.tanh(drive * signal.lfilter([1], [1, -0.9], generator.standard_normal((1, 6000)))).astype(np.float32)
    meter = measure_true_peak(audio)
    assert meter.soxr_dbtp == pytest.approx(_soxr_by_soxr(audio), abs=1e-3)
    assert meter.kaiser_dbtp == pytest.approx(_kaiser_by_scipy(audio), abs=1e-3)


def test_unmeasurable_is_none() -> None:
    """Silence and an empty stream have no peak in decibels; linear it is 0."""
    assert true_peak_dbtp(np.zeros((2, 1000), np.float32), 48000) is None
    assert true_peak_dbtp(np.zeros((2, 0), np.float32), 48000) is None
    assert true_peak_dbtp(iter(()), 48000) is None
    assert measure_true_peak(np.zeros((2, 1000), np.float32)).peak == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad: float) -> None:
    """NaN and infinity are an error that says so."""
    audio = np.zeros((2, 20000), np.float32)
    audio[1, 9000] = bad
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        measure_true_peak(audio)


def test_channel_count_must_match() -> None:
    """A block of another channel count is refused."""
    with pytest.raises(InvalidInput, match="2 channels"):
        TruePeakMeter(2).process(np.zeros((1, 10), np.float32))
