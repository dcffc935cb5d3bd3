"""The console at work: exactness, time, guard-rails, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from outboard.audio.analysis import analyze
from outboard.audio.chain import Chain
from outboard.audio.processors import BandExtender, Compressor, Equalizer, FilterBand, Processor, Reverb, StereoWidth
from outboard.audio.stereo import pan_gains
from outboard.errors import InvalidInput
from outboard.testing import drained
from services.mixer.console import Bus, EnvelopePoint, MixPlan, MixReport, Send, Strip
from services.mixer.mix import BLOCK_FRAMES, mix
from tests.processors import KINDS

RATE = 48_000
LATE = Processor("air", BandExtender(15_000.0))
PRESS = Processor("compressor", Compressor(-30.0, 3.0, lookahead_ms=5.0))


def stems(frames: int, count: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"s{k}": (0.1 * rng.standard_normal((2, frames))).astype(np.float32) for k in range(count)}


def wires(parts: dict[str, np.ndarray], **plan: object) -> MixPlan:
    return MixPlan(tuple(Strip(name, "other") for name in sorted(parts)), **plan)  # type: ignore[arg-type]


def rendered(parts: dict[str, np.ndarray], plan: MixPlan, tmp_path: Path) -> tuple[np.ndarray, MixReport]:
    blocks, report = drained(mix(parts, RATE, plan, spool_directory=tmp_path))
    return np.concatenate([np.zeros((2, 0), np.float32), *blocks], axis=1), report


@pytest.mark.parametrize("frames", [0, 1, 3, BLOCK_FRAMES, BLOCK_FRAMES + 1, 50_000])
def test_without_processors_the_mix_nulls_to_the_sum(frames: int, tmp_path: Path) -> None:
    """Residual under -140 dBFS (the contract asks for -90), same number of frames."""
    parts = stems(frames)
    y, report = rendered(parts, wires(parts), tmp_path)
    assert y.shape == (2, frames)
    assert report.frames == frames
    residual = np.abs(y - sum(part.astype(np.float64) for part in parts.values()))
    assert np.max(residual, initial=0.0) < 1e-7, f"{20 * np.log10(residual.max()):.0f} dBFS"


@pytest.mark.parametrize("at", [0, 100, BLOCK_FRAMES - 1, BLOCK_FRAMES, 39_999])
def test_every_path_is_as_late_as_the_others(at: int, tmp_path: Path) -> None:
    """Strips, buses and sends with and without latency: an impulse at frame n stays at frame n, and adds up."""
    parts = {name: np.zeros((2, 40_000), np.float32) for name in ("a", "b", "c")}
    for part in parts.values():
        part[:, at] = 0.01
    plan = MixPlan(
        strips=(
            Strip("a", "other", chain=(LATE,)),
            Strip("b", "drums", bus="bus"),
            Strip("c", "bass", sends=(Send("fx", 0.0),)),
        ),
        buses=(Bus("bus", chain=(LATE, PRESS)), Bus("fx")),
        master_chain=(LATE,),
    )
    y, _ = rendered(parts, plan, tmp_path)
    assert int(np.argmax(np.abs(y[0]))) == at
    if 1_000 < at < 39_000:
        assert y[0, at] == pytest.approx(0.04, rel=0.6)
        assert np.sum(np.abs(y[0]) > 0.02) == 1


def test_two_runs_are_identical_and_maps_equal_arrays(tmp_path: Path) -> None:
    """Same bytes again, from arrays and from transposed memory maps."""
    parts = stems(60_000)
    plan = dataclasses.replace(wires(parts), master_chain=(PRESS, LATE), peak_target_dbfs=-6.0)
    first, _ = rendered(parts, plan, tmp_path)
    mapped = {}
    for name, part in parts.items():
        np.ascontiguousarray(part.T).tofile(tmp_path / name)
        mapped[name] = np.memmap(tmp_path / name, np.float32, "r", shape=(60_000, 2)).T
    second, _ = rendered(dict(reversed(mapped.items())), plan, tmp_path)
    assert np.array_equal(first, second)


def test_the_block_size_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of processor on strips and a bus, a send, an envelope and keys between strips, corrected for rails
    that it misses: other blocks give the same mix to -120 dBFS (the FFT filters' rounding), and the same figures.
    """
    parts = stems(40_000)
    every = [Processor(name, kind) for name, kind in KINDS.items()]
    duck = Processor("duck", Compressor(-30.0, 3.0, lookahead_ms=5.0, sidechain="s1"))
    made = MixPlan(
        strips=(
            Strip("s0", "other", chain=(*every[:12], duck), bus="bus", sends=(Send("room", -12.0),)),
            Strip("s1", "bass", envelope=(EnvelopePoint(0, 0.0), EnvelopePoint(30_000, -6.0))),
            Strip("s2", "other", chain=tuple(every[12:]), bus="bus"),
        ),
        buses=(Bus("bus", chain=(LATE, PRESS)), Bus("room", chain=(Processor("room", Reverb("room", 0.3)),))),
        master_chain=(PRESS,),
        peak_target_dbfs=-6.0,
    )
    sound, report = rendered(parts, made, tmp_path)
    for size in (4_096, 5_000, 40_000):
        monkeypatch.setattr("services.mixer.mix.BLOCK_FRAMES", size)
        other, told = rendered(parts, made, tmp_path)
        worst = 20.0 * np.log10(np.max(np.abs(other - sound)) + 1e-12)
        assert worst < -120.0, f"{worst:.0f} dBFS in blocks of {size}"
        for one, two in zip((*report.strips, *report.buses), (*told.strips, *told.buses), strict=True):
            assert one.integrated_after_lufs == pytest.approx(two.integrated_after_lufs, abs=0.01)
            gains = [[entry.average_gain_db or 0.0 for entry in part.processors] for part in (one, two)]
            assert gains[0] == pytest.approx(gains[1], abs=0.01)
        for rail, same in zip(report.rails, told.rails, strict=True):
            assert (same.name, same.rounds, same.value) == (rail.name, rail.rounds, pytest.approx(rail.value, abs=0.01))


def test_the_mix_is_what_its_chains_say(tmp_path: Path) -> None:
    """Fader, pan, polarity, trim and a chain, against the same built by hand."""
    parts = stems(30_000, 2)
    chain = (Processor("eq", Equalizer((FilterBand("peak", 1_000.0, 6.0),))), Processor("width", StereoWidth(0.5)))
    plan = MixPlan(
        (Strip("s0", "other", gain_db=-6.0, pan=-0.5, chain=chain), Strip("s1", "other", polarity_inverted=True)),
        trim_db=-3.0,
    )
    y, report = rendered(parts, plan, tmp_path)
    by_hand = Chain(chain, RATE).process(parts["s0"]) * 10 ** (-6 / 20) * np.array([[1.0], [0.5]]) - parts["s1"]
    assert np.allclose(y, by_hand * 10 ** (-3 / 20), atol=1e-6)
    assert report.trim_db == -3.0


def test_a_strip_is_panned_by_its_law(tmp_path: Path) -> None:
    """A mono stem to the right: the law's factors, on both sides."""
    parts = {name: part[:1] for name, part in stems(20_000, 1).items()}
    for law in ("balance", "constant_power", "constant_sum"):
        y, _ = rendered(parts, MixPlan((Strip("s0", "other", pan=0.5, pan_law=law),)), tmp_path)  # type: ignore[arg-type]
        wanted = np.array(pan_gains(0.5, law))[:, None] * parts["s0"][0].astype(np.float64)  # type: ignore[arg-type]
        assert np.max(np.abs(y - wanted)) < 1e-7, law


def test_an_envelope_moves_the_fader_over_time(tmp_path: Path) -> None:
    """Straight lines in dB between points, aligned with the stem in spite of latency."""
    parts = {"a": np.full((2, 40_000), 0.1, np.float32)}
    points = (EnvelopePoint(10_000, 0.0), EnvelopePoint(30_000, -20.0))
    plan = MixPlan((Strip("a", "other", envelope=points),), master_chain=(LATE,))
    y, _ = rendered(parts, plan, tmp_path)
    gains = 20 * np.log10(np.abs(y[0]) / 0.1)
    for frame, wanted in ((5_000, 0.0), (20_000, -10.0), (35_000, -20.0)):
        assert gains[frame] == pytest.approx(wanted, abs=0.01)


def test_peak_target_is_met_by_a_trim(tmp_path: Path) -> None:
    """A hot mix is turned down to its target exactly, a quiet one is left as it is."""
    parts = {name: part[:1] for name, part in stems(20_000).items()}
    plan = wires(parts, peak_target_dbfs=-6.0)
    _, report = rendered({name: part * np.float32(10.0) for name, part in parts.items()}, plan, tmp_path)
    assert report.sample_peak_dbfs == pytest.approx(-6.0, abs=1e-4)
    assert report.trim_db < -5.0
    _, report = rendered({name: part * np.float32(0.1) for name, part in parts.items()}, plan, tmp_path)
    assert report.trim_db == 0.0


def test_sides_are_taken_down_or_a_warning_tells(tmp_path: Path) -> None:
    """Slightly too wide: down to -6 dB in steps of 0.5; hopelessly so: by 1.5 dB, and each rail that fails is told."""
    mid, side = np.random.default_rng(7).standard_normal((2, 40_000)) * 0.05
    for ratio, warned in ((0.57, set()), (2.0, {"LOW_CORRELATION", "GUARD_RAIL_MISSED"})):
        x = np.stack([mid + ratio * side, mid - ratio * side]).astype(np.float32)
        _, report = rendered({"a": x}, wires({"a": x}, peak_target_dbfs=0.0), tmp_path)
        assert {warning.code for warning in report.warnings} == warned
        rails = {rail.name: rail for rail in report.rails}
        assert rails["side_mid_ratio"].rounds == 3
        assert warned or (rails["side_mid_ratio"].value <= -6.0 and report.correlation >= 0.1), rails


def test_too_much_gain_reduction_is_told(tmp_path: Path) -> None:
    """A strip that is turned down by more than 3 dB on average carries a warning with its name."""
    parts = stems(20_000, 1)
    press = Processor("compressor", Compressor(-50.0, 10.0))
    _, report = rendered(parts, MixPlan((Strip("s0", "drums", chain=(press,)),)), tmp_path)
    assert [(w.code, w.stem) for w in report.warnings] == [("GAIN_REDUCTION_HIGH", "s0")]
    assert report.strips[0].processors[0].average_gain_db < -3.0


def test_silence_and_mono_are_ordinary(tmp_path: Path) -> None:
    """Silence stays silence with nothing measured; a mono stem lands in the middle."""
    quiet = {"a": np.zeros((2, 20_000), np.float32)}
    y, report = rendered(
        quiet, dataclasses.replace(wires(quiet), master_chain=(PRESS,), peak_target_dbfs=-6.0), tmp_path
    )
    assert not y.any()
    assert (report.sample_peak_dbfs, report.correlation) == (None, None)
    mono = {"a": stems(5_000, 1)["s0"][:1]}
    y, _ = rendered(mono, wires(mono), tmp_path)
    assert np.array_equal(y[0], y[1])


def test_progress_is_told_at_every_block_and_may_cancel(tmp_path: Path) -> None:
    """Fractions rise to 1; an exception from the callback ends the mix at once."""
    parts, told = stems(100_000), []
    for _ in mix(parts, RATE, wires(parts), told.append, spool_directory=tmp_path):
        pass
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) >= 2 * 100_000 // BLOCK_FRAMES

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(mix(parts, RATE, wires(parts), stop, spool_directory=tmp_path))


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    """A plan for other stems, stems of different lengths, three channels, a bus that is not there."""
    parts = stems(100)
    wrong = [
        ({"s0": parts["s0"]}, wires(parts), "there is no stem 's1'"),
        ({**parts, "s1": parts["s1"][:, :50]}, wires(parts), "one length"),
        ({**parts, "s1": np.zeros((3, 100), np.float32)}, wires(parts), "3 channels"),
        ({"s0": parts["s0"]}, MixPlan((Strip("s0", "other", bus="drums"),)), "no bus 'drums'"),
    ]
    for given, plan, words in wrong:
        with pytest.raises(InvalidInput, match=words):
            next(mix(given, RATE, plan, spool_directory=tmp_path))


def test_reports_tell_the_loudness_of_every_strip(tmp_path: Path) -> None:
    """Before its chain and after its fader: -6 dB are 6 LU, a silent stem has none, the mix is the last bus."""
    parts = {**stems(RATE, 1), "quiet": np.zeros((2, RATE), np.float32)}
    plan = MixPlan((Strip("s0", "other", gain_db=-6.0), Strip("quiet", "other", chain=(LATE,))))
    _, report = rendered(parts, plan, tmp_path)
    strip, quiet = report.strips
    assert strip.integrated_before_lufs == pytest.approx(analyze(parts["s0"], RATE).integrated_lufs, abs=0.05)
    assert strip.integrated_after_lufs - strip.integrated_before_lufs == pytest.approx(-6.0, abs=0.05)
    assert (quiet.integrated_before_lufs, quiet.integrated_after_lufs) == (None, None)
    assert report.buses[-1].integrated_after_lufs == pytest.approx(strip.integrated_after_lufs, abs=0.01)
