"""Mastering: loudness, ceiling, length, honesty of the report, cancelling, odd inputs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import decode
from outboard.audio.loudness import integrated_loudness
from outboard.audio.resample import resampled_frames
from outboard.audio.true_peak import measure_true_peak
from outboard.errors import InvalidInput
from services.master.master import master
from services.master.plan import plan
from services.master.reference import Reference
from services.master.settings import DeliverableSpec, MasterResult, MasterSettings

RATE_HERTZ = 48000
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def song() -> Array:
    """Six seconds of the demo song with its faults."""
    audio: Array = synthesise(3, 6.0).song
    return audio


def run(audio: Array, settings: MasterSettings, folder: Path, references: tuple[Reference, ...] = ()) -> MasterResult:
    """Plans and masters."""
    analysis = analyze(audio, RATE_HERTZ)
    return master(audio, RATE_HERTZ, plan(analysis, settings), directory=folder, references=references, before=analysis)


FILES = (
    DeliverableSpec("a", "wav", 48000, "24"),
    DeliverableSpec("b", "wav", 96000, "32f"),
    DeliverableSpec("c", "flac", 44100, "16"),
    DeliverableSpec("d", "mp3", 44100, bitrate_kbps=320),
    DeliverableSpec("e", "mp3", 48000, bitrate_kbps=128),
)


def test_every_file_keeps_loudness_ceiling_and_length(song: Array, tmp_path: Path) -> None:
    """At -10 LUFS, every kind of file: within 0.1 LU, under the ceiling after decoding, exact to the frame."""
    result = run(song, MasterSettings(intent="loud", deliverables=FILES), tmp_path)
    for file, spec in zip(result.deliverables, FILES, strict=True):
        with decode(file.path, sample_rate_hertz=None) as decoded:
            audio, rate = np.array(decoded.array), decoded.sample_rate_hertz
        meter = measure_true_peak(audio)
        peak = max(value for value in (meter.soxr_dbtp, meter.kaiser_dbtp, meter.annex2_dbtp) if value is not None)
        loudness = integrated_loudness(audio, rate)
        assert rate == spec.sample_rate_hertz
        assert audio.shape[1] == resampled_frames(song.shape[1], RATE_HERTZ, rate)
        assert peak <= -1.0 + (0.2 if spec.container == "mp3" else 0.05), f"{file.name}: {peak:.3f} dBTP"
        assert loudness == pytest.approx(-10.0, abs=0.1), f"{file.name}: {loudness} LUFS"
    report = result.report
    assert report.target_reached
    assert not report.warnings, report.warnings
    assert all(check.passed for check in report.checks if check.name in ("TRUE_PEAK", "LOUDNESS", "DURATION"))


def test_an_unreachable_target_is_told_with_its_reason(song: Array, tmp_path: Path) -> None:
    """-5 LUFS would need more than 5 dB of mean limiting: the loop stops at the guard-rail and says so."""
    result = run(song, MasterSettings(intent="custom", target_lufs=-5.0), tmp_path)
    report = result.report
    assert not report.target_reached
    assert re.search(r"5.0 dB of limiting .* stopped at -\d+\.\d LUFS, \d+\.\d LU short", report.target_missed_reason)
    assert [warning.code for warning in report.warnings] == ["LOUDNESS_TARGET_MISSED"]
    assert report.average_limiting_db is not None
    assert 4.5 <= report.average_limiting_db <= 5.0, f"{report.average_limiting_db} dB"
    peak = report.deliverables[0].true_peak_dbtp
    assert peak is not None
    assert peak <= -0.95, "the ceiling goes before loudness"


def test_the_crest_factor_goes_before_loudness(song: Array, tmp_path: Path) -> None:
    """A crest rail that the target would break stops the loop above it; the report says which and how close."""
    analysis = analyze(song, RATE_HERTZ)
    decided = plan(analysis, MasterSettings(intent="loud"))
    railed = replace(decided, guard_rails=replace(decided.guard_rails, crest_factor_db=12.0))
    report = master(song, RATE_HERTZ, railed, directory=tmp_path, before=analysis).report
    assert report.after is not None
    assert report.after.crest_factor_db is not None
    assert report.after.crest_factor_db >= 11.9, f"{report.after.crest_factor_db:.2f} dB"
    assert not report.target_reached
    assert "crest factor below 12.0 dB" in report.target_missed_reason
    assert report.deliverables[0].integrated_lufs is not None
    assert -12.5 <= report.deliverables[0].integrated_lufs < -10.1, "further down than the rail asks for"


@pytest.mark.parametrize(("target", "renders"), [(-16.5, 2), (-14.0, 2), (-10.0, 4)])
def test_targets_are_met_in_few_renders(target: float, renders: int, song: Array, tmp_path: Path) -> None:
    """Any target within the rails is met within 0.1 LU, quiet ones in two renders, -10 LUFS in four."""
    report = run(song, MasterSettings(intent="custom", target_lufs=target), tmp_path).report
    assert report.target_reached
    assert report.deliverables[0].integrated_lufs == pytest.approx(target, abs=0.1)
    assert report.renders <= renders, f"{report.renders} renders"


def test_two_runs_give_identical_bytes(song: Array, tmp_path: Path) -> None:
    """Determinism to the file: the same digests; another seed, another dither."""
    digests = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        (tmp_path / name).mkdir()
        result = run(song, MasterSettings(seed=seed), tmp_path / name)
        digests.append(result.report.deliverables[0].sha256)
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_missing_target_is_told_of_mixes_without_loudness_only(song: Array, tmp_path: Path) -> None:
    """A plan that aims at no loudness says of a song nothing; of silence, that it has none."""
    codes = []
    for audio in (song, np.zeros_like(song)):
        before = analyze(audio, RATE_HERTZ)
        decided = replace(plan(before, MasterSettings()), target_lufs=None, chain=())
        report = master(audio, RATE_HERTZ, decided, directory=tmp_path, before=before).report
        codes.append([warning.code for warning in report.warnings])
    assert codes == [[], ["NO_LOUDNESS_TARGET"]]


def test_pass_through_delivers_the_mix(song: Array, tmp_path: Path) -> None:
    """The pass-through engine changes nothing: a float file holds the very samples."""
    settings = MasterSettings(engine="passthrough", deliverables=(DeliverableSpec(bit_depth="32f"),))
    result = run(song, settings, tmp_path)
    with decode(result.deliverables[0].path, sample_rate_hertz=None) as decoded:
        assert np.array_equal(decoded.array, song)


def test_faults_get_no_worse(song: Array, tmp_path: Path) -> None:
    """Shimmer and mud, where measured, are lower after mastering; the report says why."""
    report = run(song, MasterSettings(), tmp_path).report
    assert report.before is not None
    assert report.after is not None
    for name in ("shimmer_index", "mud_index", "flat_dynamics_index", "hard_panning_index", "spectral_hole_ratio"):
        before, after = getattr(report.before, name), getattr(report.after, name)
        assert after <= before + 0.02, f"{name}: {before:.3f} -> {after:.3f}"
    assert len(report.decisions) >= 3


def test_reference_intent_matches_its_loudness_under_the_ceiling(song: Array, tmp_path: Path) -> None:
    """Matching to a reference ends at the reference's loudness, with the true peak held."""
    goal = synthesise(4, 6.0).clean
    reference = Reference("goal", goal, RATE_HERTZ)
    result = run(song, MasterSettings(intent="reference"), tmp_path, (reference,))
    delivered = result.report.deliverables[0]
    assert delivered.integrated_lufs == pytest.approx(integrated_loudness(goal, RATE_HERTZ), abs=0.2)
    assert delivered.true_peak_dbtp is not None
    assert delivered.true_peak_dbtp <= -0.95
    assert delivered.frames == song.shape[1]
    assert result.report.engine.name == "match"


@pytest.mark.parametrize("kind", ["none", "silent", "short", "same"])
def test_unsuitable_references_are_refused(kind: str, song: Array, tmp_path: Path) -> None:
    """No reference, a silent or short one, the mix itself: REFERENCE_UNSUITABLE, and no file."""
    audio = {"silent": np.zeros((2, 480_000), np.float32), "short": song[:, :100_000], "same": song.copy()}
    references = () if kind == "none" else (Reference("r", audio[kind], RATE_HERTZ),)
    with pytest.raises(InvalidInput) as caught:
        run(song, MasterSettings(intent="reference"), tmp_path, references)
    assert caught.value.reason == "REFERENCE_UNSUITABLE"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "frames"), [("silence", 96_000), ("three", 3), ("short", 15_000), ("dc", 96_000), ("mono", 96_000)]
)
def test_odd_inputs_have_a_defined_result(name: str, frames: int, tmp_path: Path) -> None:
    """Silence, three samples, under 400 ms, DC and mono are mastered: length kept, ceiling kept, silence silent."""
    generator = np.random.default_rng(1)
    audio = (0.5 * generator.standard_normal((1 if name == "mono" else 2, frames))).astype(np.float32)
    if name == "silence":
        audio[:] = 0.0
    elif name == "dc":
        audio[:] = 0.8
    result = run(audio, MasterSettings(intent="loud", deliverables=(DeliverableSpec(bit_depth="32f"),)), tmp_path)
    with decode(result.deliverables[0].path, sample_rate_hertz=None) as decoded:
        out = np.array(decoded.array)
    assert out.shape == audio.shape
    peak = measure_true_peak(out).true_peak_dbtp
    assert peak is None or peak <= -0.95, f"{peak} dBTP"
    if name in ("silence", "three", "short"):
        assert [warning.code for warning in result.report.warnings] == ["NO_LOUDNESS_TARGET"]
    if name == "silence":
        assert not out.any()


@pytest.mark.parametrize("kind", ["nan", "empty", "channels"])
def test_unusable_audio_is_refused(kind: str, tmp_path: Path) -> None:
    """NaN, no frames, three channels: each its reason, and no file."""
    audio = np.zeros((3 if kind == "channels" else 2, 0 if kind == "empty" else 1000), np.float32)
    if kind == "nan":
        audio[1, 500] = np.nan
    reasons = {"nan": "AUDIO_NOT_FINITE", "empty": "AUDIO_EMPTY", "channels": "AUDIO_TOO_MANY_CHANNELS"}
    good = plan(analyze(np.zeros((2, 1000), np.float32), RATE_HERTZ), MasterSettings())
    with pytest.raises(InvalidInput) as caught:
        master(audio, RATE_HERTZ, good, directory=tmp_path)
    assert caught.value.reason == reasons[kind]
    assert list(tmp_path.iterdir()) == []


def test_cancelling_leaves_no_file(song: Array, tmp_path: Path) -> None:
    """An exception from progress, at any point, ends the work; no deliverable stays. Progress never falls."""

    class CancelError(Exception):
        pass

    analysis = analyze(song, RATE_HERTZ)
    files = (DeliverableSpec("a"), DeliverableSpec("b", "mp3"))
    decided = plan(analysis, MasterSettings(deliverables=files))
    for limit in (0.05, 0.25, 0.6, 0.95):
        told: list[float] = []

        def stop(fraction: float, limit: float = limit, told: list[float] = told) -> None:
            told.append(fraction)
            if fraction >= limit:
                raise CancelError

        with pytest.raises(CancelError):
            master(song, RATE_HERTZ, decided, directory=tmp_path, progress=stop)
        assert told == sorted(told)
        assert list(tmp_path.iterdir()) == [], f"left behind at {limit}"


def test_a_bypassed_slot_is_out_of_the_path(song: Array, tmp_path: Path) -> None:
    """With its chain bypassed, an unlimited master is the mix times one gain."""
    decided = plan(analyze(song, RATE_HERTZ), MasterSettings(target_lufs=-30.0, intent="custom"))
    chain = tuple(replace(processor, bypass=True) for processor in decided.chain)
    edited = replace(decided, chain=chain, deliverables=(DeliverableSpec(bit_depth="32f"),))
    result = master(song, RATE_HERTZ, edited, directory=tmp_path)
    with decode(result.deliverables[0].path, sample_rate_hertz=None) as decoded:
        out = np.array(decoded.array)
    gain = 10 ** (result.report.drive_db / 20)
    assert np.abs(out - song * gain).max() <= 1e-6
