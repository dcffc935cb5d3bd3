"""Masking is measured as it is heard, and strips give way to one another where it was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outboard import presets
from outboard.audio.analysis import analyze
from outboard.audio.dynamic_eq import DynamicBand, DynamicBandSettings
from outboard.audio.erb import erb_number
from outboard.audio.processors import Compressor, DynamicEqualizer, Unmasker
from outboard.testing import drained
from services.mixer.console import MixPlan, MixSettings
from services.mixer.hearing import hear
from services.mixer.masking import BANDS, CENTRES_HERTZ, ErbMeter, erb_levels, indices, masking
from services.mixer.mix import mix
from services.mixer.plan import plan
from tests.unit.test_mix_plan import analysis

RATE = 48_000
BALANCED = presets.load("balanced")


def noise(seed: int, low_hertz: float, high_hertz: float, level: float = 0.1, seconds: float = 4.0) -> np.ndarray:
    """Stereo noise of one band, RMS ``level``."""
    frames = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(frames))
    hertz = np.fft.rfftfreq(frames, 1.0 / RATE)
    mono = np.fft.irfft(spectrum * ((hertz >= low_hertz) & (hertz < high_hertz)), frames)
    mono *= level / np.sqrt(np.mean(mono**2))
    return np.stack([mono, mono]).astype(np.float32)


def planned(stems: dict[str, np.ndarray], roles: dict[str, str], bypass: tuple[str, ...] = ()) -> MixPlan:
    analyses = {name: analyze(stem, RATE) for name, stem in stems.items()}
    heard = {name: hear(stem, RATE) for name, stem in stems.items()}
    settings = MixSettings(bypass=bypass, respect_user_gains=True)
    return plan(analyses, roles, None, BALANCED, settings, heard=heard)


def test_erb_scale() -> None:
    """Glasberg and Moore: 1 kHz lies 15.6 bands up; the bands reach from 40 Hz to 16 kHz."""
    assert erb_number(1_000.0) == pytest.approx(15.6, abs=0.05)
    assert len(CENTRES_HERTZ) == BANDS
    assert CENTRES_HERTZ[0] < 60.0
    assert 14_000.0 < CENTRES_HERTZ[-1] < 17_500.0


def test_meter_reads_the_power_of_a_band() -> None:
    """White noise in one band: its level is found there, within 1 dB, and hardly anywhere else."""
    levels = erb_levels(noise(1, 500.0, 2_000.0), RATE)
    power = 10.0 ** (levels / 10.0)
    assert 10.0 * np.log10(power.sum(axis=1).mean()) == pytest.approx(-20.0, abs=1.0)
    assert levels[:, [band for band, hertz in enumerate(CENTRES_HERTZ) if hertz > 4_000.0]].max() < -60.0


def test_meter_does_not_depend_on_the_blocks() -> None:
    """Any cut of the stream gives the same levels."""
    stem = noise(2, 100.0, 8_000.0, seconds=2.0)
    whole, cut = ErbMeter(RATE), ErbMeter(RATE)
    whole.process(stem)
    for begin in range(0, stem.shape[1], 1_237):
        cut.process(stem[:, begin : begin + 1_237])
    assert np.array_equal(whole.levels_db, cut.levels_db)


def test_masking_rises_with_the_masker_and_not_with_the_gain_of_both() -> None:
    """0 for another register, over 0.9 for the same register 15 dB over it; the same at any common gain."""
    voice, other = (erb_levels(noise(seed, 300.0, 3_000.0), RATE) for seed in (3, 4))
    far = erb_levels(noise(5, 6_000.0, 9_000.0), RATE)
    found = [masking(voice, [other + np.float32(gain)]).index for gain in (-25.0, -10.0, 0.0, 5.0, 15.0)]
    assert found == sorted(found)
    assert found[0] < 0.02, found
    assert found[-1] > 0.9, found
    assert masking(voice, [far]).index < 0.05
    again = masking(voice - np.float32(6.0), [other - np.float32(6.0)])
    assert again.index == pytest.approx(masking(voice, [other]).index, abs=0.02)
    assert sum(again.bands) == pytest.approx(again.index)


def test_nothing_is_masked_by_nothing() -> None:
    """Silence, an empty stream and a single strip: index 0."""
    silent = erb_levels(np.zeros((2, RATE), np.float32), RATE)
    voice = erb_levels(noise(6, 300.0, 3_000.0, seconds=1.0), RATE)
    empty = erb_levels(np.zeros((2, 0), np.float32), RATE)
    assert indices({"a": voice}) == {"a": 0.0}
    assert masking(voice, [silent]).index == 0.0
    assert masking(silent, [voice]).index == 0.0
    assert masking(voice, [empty]).index == 0.0


def test_music_gives_way_to_the_lead_and_the_report_tells_it(tmp_path: Path) -> None:
    """A pad in the voice's register is cut there while it sings: the voice's masking falls; both moves show."""
    stems = {"pad": noise(7, 300.0, 3_000.0), "voice": noise(8, 300.0, 3_000.0)}
    made = planned(stems, {"pad": "pad", "voice": "lead_vocal"})
    pad, voice = made.strips
    assert {"masking", "lead_sidechain"} <= {p.label for p in pad.chain}
    assert not {"masking", "lead_sidechain"} & {p.label for p in voice.chain}
    cuts = next(p.kind for p in pad.chain if p.label == "masking")
    assert isinstance(cuts, Unmasker)
    assert -4.0 <= cuts.range_db < 0.0
    assert cuts.sidechain == "voice"
    assert cuts.low_hertz < 400.0 < 2_000.0 < cuts.high_hertz < 8_000.0, cuts
    step = next(p.kind for p in pad.chain if p.label == "lead_sidechain")
    assert isinstance(step, Compressor)
    assert 0.5 <= step.range_db <= 1.5
    report = rendered(stems, made, tmp_path)
    told = {strip.name: strip for strip in report.strips}
    before, after = told["voice"].masking_before_index, told["voice"].masking_after_index
    assert after < 0.8 * before, f"{before:.3f} -> {after:.3f}"
    # Noise over noise is the hardest case: what the cuts take from the pad, the music's fader gives back.
    assert next(rail for rail in report.rails if rail.name == "vocal_balance").held, report.rails
    assert not report.warnings


def rendered(stems: dict[str, np.ndarray], made: MixPlan, folder: Path):  # type: ignore[no-untyped-def]
    return drained(mix(stems, RATE, made, spool_directory=folder))[1]


def test_bass_gives_way_to_the_kick_ahead_of_its_stroke(tmp_path: Path) -> None:
    """The bass is turned down at 40 to 120 Hz under strokes only, by no more than the preset says."""
    seconds = np.arange(4 * RATE) / RATE
    stroke = np.exp(-(seconds % 0.5) / 0.06) * np.sin(2 * np.pi * 60.0 * (seconds % 0.5))
    stems = {
        "bass": np.tile(0.2 * np.sin(2 * np.pi * 70.0 * seconds), (2, 1)).astype(np.float32),
        "bd": np.tile(0.7 * stroke, (2, 1)).astype(np.float32),
    }
    made = planned(stems, {"bass": "bass", "bd": "kick"})
    move = next(p.kind for p in made.strips[0].chain if p.label == "kick_sidechain")
    assert isinstance(move, DynamicEqualizer)
    assert 5.0 <= move.bands[0].lookahead_ms <= 10.0
    told = rendered(stems, made, tmp_path).strips[0].processors[-1]
    assert told.extreme_gain_db == pytest.approx(-BALANCED["mix.sidechain.kick_bass_db"], abs=0.1)
    assert -1.5 < told.average_gain_db < -0.1, told


def test_moves_can_be_bypassed_and_strips_stand_on_buses() -> None:
    """The new labels are known to `bypass`; every strip is on the bus of its kind, and no bus is empty."""
    stems = {"pad": noise(9, 300.0, 3_000.0), "voice": noise(10, 300.0, 3_000.0)}
    made = planned(stems, {"pad": "pad", "voice": "lead_vocal"}, ("masking", "lead_sidechain"))
    assert all(p.bypass for p in made.strips[0].chain if p.label in ("masking", "lead_sidechain"))
    assert [strip.bus for strip in made.strips] == ["music", "vocals"]
    assert [bus.name for bus in made.buses if bus.name not in ("reverb", "delay")] == ["music", "vocals"]


def test_without_levels_nobody_gives_way() -> None:
    """A plan from analyses alone (`PlanMix`) makes no claim about masking."""
    made = plan({"a": analysis(), "b": analysis()}, {"a": "lead_vocal", "b": "pad"}, None, BALANCED, MixSettings())
    assert not {"masking", "lead_sidechain"} & {p.label for strip in made.strips for p in strip.chain}


def test_look_ahead_moves_the_gain_and_delays_the_sound() -> None:
    """With 5 ms the gain is down when the loud part begins; silence of the key leaves an exact, later copy."""
    settings = DynamicBandSettings(1_000.0, 1.0, 8.0, -12.0, threshold_db=-30.0, attack_ms=1.0, lookahead_ms=5.0)
    band = DynamicBand(settings, RATE, 2)
    late = round(0.005 * RATE)
    assert band.latency_frames == late
    sound = noise(11, 500.0, 2_000.0, seconds=0.2)
    out = band.process(sound, np.zeros_like(sound))
    assert np.array_equal(out[:, late:], sound[:, :-late])
    tone = np.tile(np.sin(2 * np.pi * 1_000.0 * np.arange(RATE // 5) / RATE), (2, 1)).astype(np.float32)
    tone[:, : RATE // 10] *= 1e-3
    loud = slice(RATE // 10 + 60, RATE // 10 + 250)
    peaks = []
    for ahead in (0.0, 5.0):
        at_work = DynamicBand(
            DynamicBandSettings(1_000.0, 1.0, 8.0, -12.0, -30.0, attack_ms=3.0, lookahead_ms=ahead), RATE, 2
        )
        heard = at_work.process(tone)[:, at_work.latency_frames :]
        peaks.append(float(np.abs(heard[:, loud]).max()))
    assert peaks[1] < 0.7 * peaks[0], peaks
