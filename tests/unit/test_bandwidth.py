"""The engine `bandwidth`: a new top where one was cut off, and nothing anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from outboard.audio.cutoff import Cutoff
from outboard.audio.demo import synthesise
from outboard.audio.spool import Spool
from outboard.testing import drained
from services.restorer.bandwidth import plan
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, diagnose, restore

RATE = 48_000
ENGINE = RestorationStep("bandwidth")


def restored(
    audio: np.ndarray,
    *steps: RestorationStep,
    role: str = "",
    seed: int = 0,
    rate: int = RATE,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, RestorationReport]:
    """All blocks joined, and the report."""
    blocks, report = drained(
        restore(audio, rate, RestorationSettings(role=role, steps=steps or (ENGINE,), seed=seed), progress)
    )
    return np.concatenate([*blocks, audio[:, :0]], axis=1), report


def low_passed(audio: np.ndarray, cutoff_hertz: float, rate: int = RATE) -> np.ndarray:
    """A brick wall: 801 taps."""
    taps = signal.firwin(801, cutoff_hertz, window=("kaiser", 9.0), fs=rate)
    full = signal.oaconvolve(audio, taps[None, :], axes=1)
    return np.asarray(full[:, 400 : 400 + audio.shape[1]], np.float32)


@cache
def stem(name: str) -> np.ndarray:
    return np.ascontiguousarray(synthesise(21, 8.0).stems[name][:, -5 * RATE :])


def band(audio: np.ndarray, low_hertz: float, high_hertz: float, rate: int = RATE) -> float:
    """Mean power of a band, dBFS."""
    spectrum = np.fft.rfft(audio.astype(np.float64))
    hertz = np.fft.rfftfreq(audio.shape[1], 1.0 / rate)
    inside = (hertz >= low_hertz) & (hertz < high_hertz)
    power = 2.0 * np.mean(np.sum(np.abs(spectrum[:, inside]) ** 2, axis=1)) / audio.shape[1] ** 2
    return float(10.0 * np.log10(power + 1e-30))


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
@pytest.mark.parametrize("cutoff_hertz", [8_000.0, 11_000.0, 15_000.0])
def test_the_new_band_has_the_level_of_the_lost_one(name: str, cutoff_hertz: float) -> None:
    """Up to half an octave above the wall the level comes back to within 8 dB, where it was 20 dB and more lower."""
    cut = low_passed(stem(name), cutoff_hertz)
    output, report = restored(cut)
    edges = cutoff_hertz * 1.02, min(20_000.0, cutoff_hertz * 1.4)
    lost, left, new = (band(audio, *edges) for audio in (stem(name), cut, output))
    assert left < lost - 20.0
    assert abs(new - lost) <= 8.0, f"{name} at {cutoff_hertz:.0f} Hz: {lost:.1f} dBFS lost, {new:.1f} new"
    action = report.actions[-1]
    assert (action.engine, action.treatment, action.amount) == ("bandwidth", "extension", 1.0)
    assert action.before == pytest.approx(cutoff_hertz, rel=0.08)
    assert action.after is not None
    assert action.after > cutoff_hertz * 1.2, f"{action}"
    assert [engine.name for engine in report.engines] == ["bandwidth"]


@pytest.mark.parametrize("name", ["vocals", "drums", "other"])
def test_below_the_cross_fade_the_original_stays(name: str) -> None:
    """What is added below the wall less 150 Hz, the cross-fade's lower half, lies below -90 dBFS."""
    cut = low_passed(stem(name), 9_000.0)
    output, report = restored(cut)
    assert report.found.bandwidth_hertz is not None
    added = output.astype(np.float64) - cut
    level = band(added, 0.0, report.found.bandwidth_hertz - 150.0)
    assert level <= -90.0, f"{level:.1f} dBFS"
    assert band(added, 9_000.0, 20_000.0) > level + 20.0


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_full_band_stays_bit_for_bit(name: str) -> None:
    """What was not cut off, or only at 17.5 kHz and more, is left alone, asked for or not."""
    for audio in (stem(name), low_passed(stem(name), 18_000.0)):
        for step in (ENGINE, RestorationStep("bandwidth", amount=1.0)):
            output, report = restored(audio, step)
            assert output.tobytes() == audio.tobytes(), report.actions
            assert report.unchanged


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_a_cut_between_16_and_17_khz_keeps_40_db(name: str) -> None:
    """What reaches 16 kHz gets what little there is above, 41 dB below itself at most."""
    audio = low_passed(stem(name), 16_500.0)
    output, report = restored(audio)
    if report.actions[-1].amount:
        kept = 10 * np.log10(np.sum(audio**2) / np.sum((output - audio) ** 2))
        assert kept >= 40.0, f"{name}: {kept:.1f} dB"


@pytest.mark.parametrize("order", [1, 2, 4, 8])
def test_a_natural_roll_off_is_left_alone(order: int) -> None:
    """Filters of 6 to 48 dB an octave, as instruments and synthesisers have them, are no walls."""
    sections = signal.butter(order, 3_000.0, fs=RATE, output="sos")
    noise = np.random.default_rng(1).standard_normal((2, 4 * RATE))
    audio = (0.2 * signal.sosfilt(sections, noise, axis=1)).astype(np.float32)
    output, report = restored(audio)
    assert output.tobytes() == audio.tobytes(), report.actions
    assert not report.found.brick_wall
    assert "fades" in report.actions[-1].reason


def test_the_diagnosis_tells_a_wall_from_a_fade() -> None:
    """A wall is found to within 100 Hz over noise, with its steepness; a fade has the slope of its filter."""
    noise = (0.1 * np.random.default_rng(2).standard_normal((2, 4 * RATE))).astype(np.float32)
    for cutoff_hertz in (5_000.0, 8_000.0, 11_000.0, 15_000.0, 19_000.0):
        found = diagnose(low_passed(noise, cutoff_hertz), RATE)
        assert found.brick_wall
        assert found.bandwidth_hertz == pytest.approx(cutoff_hertz, abs=100.0)
        assert (found.bandwidth_slope_db_per_octave or 0.0) > 300.0
    fading = signal.sosfilt(signal.butter(4, 2_000.0, fs=RATE, output="sos"), noise, axis=1).astype(np.float32)
    found = diagnose(fading, RATE)
    assert not found.brick_wall
    # The bilinear transform bends a filter of 24 dB an octave down towards Nyquist.
    assert 24.0 <= (found.bandwidth_slope_db_per_octave or 0.0) <= 60.0
    assert diagnose(np.zeros((2, RATE), np.float32), RATE).bandwidth_hertz is None


def test_a_lone_whistle_is_no_wall() -> None:
    """A tone that is the highest thing in a stem does not make an edge of its place."""
    seconds = np.arange(4 * RATE) / RATE
    noise = np.random.default_rng(3).standard_normal((2, seconds.size))
    soft = signal.sosfilt(signal.butter(4, 1_000.0, fs=RATE, output="sos"), noise, axis=1)
    audio = (0.1 * soft + 0.01 * np.sin(2 * np.pi * 9_000.0 * seconds)).astype(np.float32)
    assert not diagnose(audio, RATE).brick_wall


def test_transients_stay_sharp() -> None:
    """Before a click nothing of the new band is heard: 60 dB below it from 25 ms before it on."""
    audio = np.zeros((2, 3 * RATE), np.float32)
    generator = np.random.default_rng(5)
    clicks = [RATE // 2, RATE, 2 * RATE]
    for at in clicks:
        audio[:, at : at + 2_400] += generator.standard_normal((2, 2_400)) * np.exp(-np.arange(2_400) / 300.0) * 0.3
    cut = low_passed(audio, 8_000.0)
    output, report = restored(cut)
    assert report.actions[-1].amount == 1.0
    added = output - cut
    for at in clicks:
        before = np.mean(added[:, at - 2_400 : at - 1_200] ** 2)
        after = np.mean(added[:, at : at + 480] ** 2)
        assert 10 * np.log10(after / (before + 1e-20)) >= 60.0


def test_the_result_is_the_seeds_and_not_the_readings() -> None:
    """The same seed gives the same bytes from a memory map and an array; another seed changes the noise alone."""
    cut = low_passed(stem("drums"), 8_000.0)
    first, _ = restored(cut, seed=3)
    with Spool(2) as spool:
        for start in range(0, cut.shape[1], 10_007):
            spool.append(cut[:, start : start + 10_007])
        again, _ = restored(spool.array, seed=3)
    assert again.tobytes() == first.tobytes()
    other, _ = restored(cut, seed=4)
    assert other.tobytes() != first.tobytes()
    assert band(other - first, 0.0, 7_400.0) < -90.0


@pytest.mark.parametrize("amount", [0.0, 0.5])
def test_the_amount_scales_the_new_band(amount: float) -> None:
    """Half of it is 6 dB less of the new band; 0 leaves every bit."""
    cut = low_passed(stem("drums"), 8_000.0)
    whole, _ = restored(cut)
    some, report = restored(cut, RestorationStep("bandwidth", amount=amount))
    np.testing.assert_allclose(some - cut, amount * (whole - cut), atol=1e-6)
    assert report.unchanged == (amount == 0.0)


def test_a_voice_keeps_35_db(test_data: Path) -> None:
    """Clean singing whose recording ends at 11 kHz keeps at least 35 dB SNR; asked for, it gets all of the band."""
    audio, _ = soundfile.read(test_data / "ground_truth/potassium/vocals.flac", dtype="float32", frames=6 * RATE)
    singing = np.ascontiguousarray(audio.T)
    output, report = restored(singing, role="lead_vocal")
    assert report.found.brick_wall
    kept = 10 * np.log10(np.sum(singing**2) / np.sum((output - singing) ** 2))
    assert 35.0 <= kept <= 40.0, f"{kept:.1f} dB, {report.actions}"
    level = band(output.astype(np.float64) - singing, 0.0, (report.found.bandwidth_hertz or 0.0) - 150.0)
    assert level <= -90.0, f"{level:.1f} dBFS below the cross-fade"
    asked, _ = restored(singing, RestorationStep("bandwidth", amount=1.0), role="lead_vocal")
    assert np.sum((asked - singing) ** 2) > np.sum((output - singing) ** 2)


def test_a_voice_that_is_loud_at_its_wall_gets_all_of_the_band() -> None:
    """Breath of a steady level up to 11 kHz was cut there: the wall goes. With far softer breath 35 dB are kept."""
    breath = 0.05 * np.random.default_rng(2).standard_normal((2, 4 * RATE))
    voice = low_passed(breath.astype(np.float32), 1_500.0)
    cut = low_passed(breath.astype(np.float32), 11_000.0)
    output, report = restored(cut, role="lead_vocal")
    assert report.found.brick_wall
    assert (report.left.bandwidth_hertz or 0.0) > 15_000.0, f"{report.left}, {report.actions}"
    assert next(done.amount for done in report.actions if done.treatment == "extension") == 1.0, report.actions
    soft = np.asarray(4.0 * voice + 0.03 * cut, dtype=np.float32)
    output, report = restored(soft, role="lead_vocal")
    assert report.found.brick_wall
    kept = 10 * np.log10(np.sum(soft**2) / np.sum((output - soft) ** 2))
    assert kept >= 35.0, f"{kept:.1f} dB, {report.actions}"


@pytest.mark.parametrize(("edge_db", "limit_db"), [(-70.0, -36.0), (-48.0, -36.0), (-46.0, -30.0), (-42.0, -18.0)])
@pytest.mark.parametrize("power_db", [-25.0, -10.0])
def test_the_limit_rises_with_the_level_at_the_wall(edge_db: float, limit_db: float, power_db: float) -> None:
    """By 3 dB for every dB over -48, whatever the gain; instruments, walls below 10 kHz and amounts have none."""
    cutoff = Cutoff(11_000.0, 900.0, True, edge_db + power_db)
    power = 10 ** (power_db / 10)
    assert plan("lead_vocal", None, cutoff, power).limit_db == pytest.approx(limit_db)
    assert plan("keys", None, cutoff, power).limit_db is None
    assert plan("lead_vocal", None, replace(cutoff, hertz=8_000.0), power).limit_db is None
    assert plan("lead_vocal", 1.0, cutoff, power).limit_db is None


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate(rate: int, channels: int) -> None:
    """A wall at 8 kHz is extended where the rate has room above it, up to 20 kHz; slower rates stay as they were."""
    noise = 0.1 * np.random.default_rng(1).standard_normal((channels, 2 * rate))
    cutoff_hertz = min(8_000.0, 0.4 * rate)
    cut = low_passed(noise.astype(np.float32), cutoff_hertz, rate)
    output, _ = restored(cut, rate=rate)
    assert output.shape == cut.shape
    assert np.all(np.isfinite(output))
    if rate >= 22_050:
        assert band(output, 8_500.0, 10_500.0, rate) > band(cut, 8_500.0, 10_500.0, rate) + 20.0
    if rate >= 96_000:
        assert band(output, 20_600.0, 22_600.0, rate) < band(output, 8_500.0, 10_500.0, rate) - 40.0


@settings(max_examples=8, deadline=None)
@given(frames=st.integers(0, 100_000), channels=st.integers(1, 2), seed=st.integers(0, 2**63 - 1))
def test_any_length(frames: int, channels: int, seed: int) -> None:
    """As many frames come back as went in, finite; silence stays silent."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal((channels, frames))
    cut = low_passed(noise.astype(np.float32), 8_000.0) if frames else noise.astype(np.float32)
    output, _ = restored(cut, seed=seed)
    assert output.shape == (channels, frames)
    assert np.all(np.isfinite(output))
    silence = np.zeros((channels, frames), np.float32)
    assert not np.any(restored(silence)[0])


def test_progress_rises_to_one_and_may_cancel() -> None:
    """Progress never falls and ends at 1; what it raises ends the work."""
    cut = low_passed(stem("drums"), 8_000.0)
    seen: list[float] = []
    restored(cut, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)

    def stop(fraction: float) -> None:
        if fraction > 0.6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        restored(cut, progress=stop)
