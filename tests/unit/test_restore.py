"""Restoration: what is faulty gets better, what is clean stays bit for bit as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from outboard.audio.demo import PATHOLOGIES, DemoSong, synthesise
from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from outboard.testing import drained
from services.restorer.restore import (
    RestorationReport,
    RestorationSettings,
    RestorationStep,
    diagnose,
    engines,
    restore,
)

RATE = 48_000


@pytest.fixture(scope="module")
def demo() -> DemoSong:
    return synthesise(21, 8.0)


def restored(
    audio: np.ndarray,
    *steps: RestorationStep,
    sample_rate_hertz: int = RATE,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, RestorationReport]:
    """All blocks joined, and the report."""
    blocks, report = drained(restore(audio, sample_rate_hertz, RestorationSettings(steps=steps), progress))
    return np.concatenate([*blocks, audio[:, :0]], axis=1), report


def excerpt_of(path: Path, seconds: float = 20.0) -> np.ndarray:
    """The middle of a file, stereo at 48 kHz, without decoding all of it."""
    with av.open(str(path)) as container:
        container.seek(max(0, int((container.duration or 0) / 2 - seconds / 2 * 1e6)))
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        parts: list[np.ndarray] = []
        for frame in container.decode(audio=0):
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
            if sum(part.shape[1] for part in parts) >= seconds * RATE:
                break
    return np.concatenate(parts, axis=1).astype(np.float32)


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    noise = np.sum((reference.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / (noise + 1e-30)))


def below(audio: np.ndarray, hertz: float) -> np.ndarray:
    """What lies below a frequency."""
    spectrum = np.fft.rfft(audio.astype(np.float64))
    spectrum[:, np.fft.rfftfreq(audio.shape[1], 1.0 / RATE) >= hertz] = 0.0
    return np.fft.irfft(spectrum, audio.shape[1])


def action(report: RestorationReport, treatment: str) -> float:
    return next(action.amount for action in report.actions if action.treatment == treatment)


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_clean_stem_comes_back_bit_for_bit(name: str, demo: DemoSong) -> None:
    """Where nothing is found nothing is touched, and the report says so."""
    output, report = restored(demo.stems[name])
    assert output.tobytes() == demo.stems[name].tobytes()
    assert report.unchanged
    assert all(done.amount == 0 for done in report.actions)
    assert all(done.reason for done in report.actions)


def check_unharmed(folder: Path, seconds: float) -> None:
    """As much of every recording of a folder comes back with at least 40 dB SNR; no shimmer is read in any.

    What was cut off below 16 kHz gets a new top, and keeps what lies below it.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".mp3", ".ogg", ".flac", ".m4a", ".wav"}:
            continue
        excerpt = excerpt_of(path, seconds)
        output, report = restored(excerpt)
        if np.any(excerpt):
            # A real offset may go; judge what remains.
            kept = excerpt - np.mean(excerpt, axis=1, keepdims=True) * action(report, "dc")
            if action(report, "extension"):
                kept, output = (below(audio, (report.found.bandwidth_hertz or 0.0) - 500.0) for audio in (kept, output))
            assert snr_db(kept, output) >= 40.0, f"{path.name}: {snr_db(kept, output):.1f} dB, {report.actions}"
            assert (report.found.shimmer_index or 0.0) <= 0.1, f"{path.name}: {report.found}"


@pytest.mark.parametrize("folder", ["references", "songs", "stems/potassium"])
def test_real_recordings_are_not_harmed(folder: str, test_data: Path) -> None:
    """10 s of every full-band recording come back with at least 40 dB SNR; 20 s of them do in the acceptance tests."""
    check_unharmed(test_data / folder, 10.0)


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_shimmer_is_reduced(name: str, severity: float, demo: DemoSong) -> None:
    """A stem with shimmer comes back nearer to the clean one and with a lower index."""
    clean = demo.stems[name]
    spoiled = PATHOLOGIES["shimmer"](clean, RATE, 3, severity)
    output, report = restored(spoiled)
    before, after = snr_db(clean, spoiled), snr_db(clean, output)
    needed = 4.0 if severity == 1.0 else 0.0
    assert after >= before + needed, f"{name} at {severity}: {before:.1f} -> {after:.1f} dB"
    assert report.found.shimmer_index is not None
    assert report.left.shimmer_index is not None
    assert report.left.shimmer_index <= report.found.shimmer_index
    if severity == 1.0:
        assert report.left.shimmer_index < 0.5 * report.found.shimmer_index, f"{report.found} {report.left}"


def test_shimmer_index_rises_with_severity_and_ignores_gain(demo: DemoSong) -> None:
    """Monotone over five severities; +-6 dB of gain moves it by at most 0.02."""
    clean = demo.stems["drums"]
    spoiled = [PATHOLOGIES["shimmer"](clean, RATE, 5, severity) for severity in (0.2, 0.4, 0.6, 0.8, 1.0)]
    indices = [diagnose(audio, RATE).shimmer_index or 0.0 for audio in spoiled]
    assert indices == sorted(indices), indices
    assert indices[-1] > 0.2, indices
    for gain in (0.5, 2.0):
        changed = diagnose(spoiled[-1] * np.float32(gain), RATE).shimmer_index or 0.0
        assert abs(changed - indices[-1]) <= 0.02, f"gain {gain}: {indices[-1]:.3f} -> {changed:.3f}"


@pytest.mark.parametrize("clipped_by_db", [3.0, 6.0])
@pytest.mark.parametrize("name", ["vocals", "drums", "other"])
def test_declipping_brings_the_stem_nearer_and_keeps_unclipped_samples(
    name: str, clipped_by_db: float, demo: DemoSong
) -> None:
    """SDR rises, and every sample below the clipping level is bit-identical; redrawn ones never lie below it."""
    clean = demo.stems[name]
    level = np.float32(np.max(np.abs(clean)) * 10 ** (-clipped_by_db / 20))
    clipped = np.clip(clean, -level, level)
    output, report = restored(clipped, RestorationStep("repair"))
    before, after = snr_db(clean, clipped), snr_db(clean, output)
    assert after > before + (0.3 if clipped_by_db > 3 else 0.0), f"{before:.1f} -> {after:.1f} dB"
    assert action(report, "declip") == 1.0
    below = np.abs(clipped) < level * 0.999
    assert np.array_equal(output[below], clipped[below])
    assert np.all(np.abs(output[~below]) >= level * 0.999)
    assert report.left.clipped_samples < report.found.clipped_samples / 2


def test_what_clipping_feigns_is_not_treated() -> None:
    """A bass that is clipped on one side more than on the other shows an offset; once its crests are drawn there is
    none, and nothing but declipping is done.
    """
    clean = synthesise(3, 5.0).stems["bass"][:, -3 * RATE :]
    level = np.float32(np.max(np.abs(clean)) / 2.0)
    _, report = restored(np.clip(clean, -level, level), RestorationStep("repair"))
    assert max(map(abs, report.found.dc_offset)) > 0.002, report.found
    assert max(map(abs, report.left.dc_offset)) < 0.001, report.left
    done = [treated.treatment for treated in report.actions if treated.amount]
    assert done == ["declip"], report.actions


def test_square_wave_is_not_clipped() -> None:
    """Flat tops that the signal jumps into are how it is meant."""
    time = np.arange(4 * RATE) / RATE
    square = np.tile(np.sign(np.sin(2 * np.pi * 110 * time + 0.1)) * 0.8, (2, 1)).astype(np.float32)
    output, report = restored(square)
    assert output.tobytes() == square.tobytes(), report


def test_dc_is_removed_and_nothing_else(demo: DemoSong) -> None:
    """An offset goes; the rest stays within rounding."""
    clean = demo.stems["vocals"]
    offset = np.array([[0.05], [-0.02]], dtype=np.float32)
    output, report = restored(clean + offset)
    assert np.max(np.abs(np.mean(output, axis=1))) < 1e-6
    centred = clean - np.mean(clean, axis=1, keepdims=True)
    assert np.max(np.abs(output - centred)) < 1e-6
    assert action(report, "dc") == 1.0
    assert report.found.dc_offset == pytest.approx((0.05, -0.02), abs=1e-3)


def test_all_faults_at_once_and_only_part_of_the_amount(demo: DemoSong) -> None:
    """Clipping, DC and shimmer on one stem all go; half the amount changes less."""
    clean = demo.stems["other"]
    spoiled = PATHOLOGIES["shimmer"](clean, RATE, 9, 1.0)
    level = np.max(np.abs(spoiled)) * 0.7
    spoiled = np.clip(spoiled, -level, level).astype(np.float32) + np.float32(0.02)
    full, report = restored(spoiled)
    half, _ = restored(spoiled, RestorationStep("repair", amount=0.5))
    assert [action(report, name) for name in ("declip", "dc", "resonance")] == [1.0, 1.0, 1.0], report.actions
    errors = [snr_db(clean, audio) for audio in (spoiled, half, full)]
    assert errors == sorted(errors), errors


@pytest.mark.parametrize("step", [RestorationStep("passthrough"), RestorationStep("repair", amount=0.0)])
def test_bypass_is_bit_exact(step: RestorationStep, demo: DemoSong) -> None:
    """Pass-through and amount 0 return every bit, even of a faulty stem."""
    output, report = restored(demo.song, step)
    assert output.tobytes() == demo.song.tobytes()
    assert report.unchanged


def test_result_does_not_depend_on_how_the_stem_lies_in_memory_and_runs_are_identical(demo: DemoSong) -> None:
    """An interleaved memory map (as a spool gives), a C array and a second run give the same bytes."""
    spoiled = PATHOLOGIES["shimmer"](demo.stems["drums"], RATE, 3, 0.9)
    first, _ = restored(spoiled)
    for chunk in (1_000, 65_536, 100_003):
        with Spool(2) as spool:
            for start in range(0, spoiled.shape[1], chunk):
                spool.append(spoiled[:, start : start + chunk])
            again, _ = restored(spool.array)
        assert again.tobytes() == first.tobytes(), chunk


def test_latency_is_compensated(demo: DemoSong) -> None:
    """The restored stem lies on the input to the frame: their cross-correlation peaks at 0."""
    spoiled = PATHOLOGIES["shimmer"](demo.stems["drums"], RATE, 3, 1.0)
    output, _ = restored(spoiled)
    size = 2 * spoiled.shape[1]
    product = np.fft.rfft(spoiled[0], size) * np.conj(np.fft.rfft(output[0], size))
    assert int(np.argmax(np.fft.irfft(product))) == 0


@pytest.mark.parametrize("frames", [0, 1, 3, 4095, 65_536, 65_537])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length_and_mono(frames: int, channels: int) -> None:
    """As many frames come back as went in, finite, down to none at all."""
    noise = np.random.default_rng(1).standard_normal((channels, frames)).astype(np.float32) * 0.1
    output, report = restored(noise)
    assert output.tobytes() == noise.tobytes()
    assert report.frames == frames


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000, 192_000])
def test_any_rate(rate: int) -> None:
    """A tone at 9 kHz is tamed where the rate can hold the band, and nothing breaks where it cannot."""
    time = np.arange(3 * rate) / rate
    noise = np.random.default_rng(1).standard_normal((1, time.size)).astype(np.float32) * 0.05
    output, _ = restored(noise, sample_rate_hertz=rate)
    assert output.tobytes() == noise.tobytes()


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_silence_and_constant(value: float) -> None:
    """Silence stays silent bit by bit; a constant is all DC and becomes silence."""
    constant = np.full((2, 2 * RATE), value, dtype=np.float32)
    output, report = restored(constant)
    assert np.max(np.abs(output)) < 1e-7, report
    assert (report.found.shimmer_index or 0.0) == 0.0


def test_bad_requests_are_refused(demo: DemoSong) -> None:
    """NaN and infinities, unknown engines, amounts out of range and conflicts each have their reason."""
    for value in (np.nan, np.inf):
        broken = demo.stems["bass"].copy()
        broken[1, 70_000] = value
        for step in (RestorationStep("repair"), RestorationStep("passthrough")):
            with pytest.raises(InvalidInput) as not_finite:
                restored(broken, step)
            assert not_finite.value.reason == "AUDIO_NOT_FINITE"
    with pytest.raises(InvalidInput) as unknown:
        restored(demo.stems["bass"], RestorationStep("wizard"))
    assert unknown.value.reason == "ENGINE_UNKNOWN"
    with pytest.raises(InvalidInput):
        restored(demo.stems["bass"], RestorationStep("repair", amount=1.5))
    with pytest.raises(InvalidInput):
        restored(demo.stems["bass"], RestorationStep("repair"), RestorationStep("passthrough"))
    names = {"repair", "deepfilternet3", "audiosr", "audiosr_speech", "bandwidth", "passthrough"}
    assert {engine.name for engine in engines()} == names


def test_progress_rises_to_one_and_may_cancel(demo: DemoSong) -> None:
    """Progress never falls and ends at 1; what it raises ends the work."""
    seen: list[float] = []
    restored(demo.stems["bass"], progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)

    def stop(fraction: float) -> None:
        if fraction > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        restored(demo.stems["bass"], progress=stop)
