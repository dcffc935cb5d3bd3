"""Buses, space, sections and guard-rails: every move answers a measurement, and a finished mix is held to its rails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outboard import presets
from outboard.audio.analysis import analyze
from outboard.audio.processors import Compressor, Delay, Equalizer, FilterBand, Processor, Reverb
from outboard.testing import drained
from services.mixer.buses import low_mid_share_db
from services.mixer.console import Bus, MixPlan, MixSettings, Send, Strip
from services.mixer.hearing import Heard, Strokes, hear
from services.mixer.masking import BANDS, CENTRES_HERTZ, Levels
from services.mixer.mix import mix
from services.mixer.plan import plan
from services.mixer.sections import section_starts
from tests.unit.test_mix import rendered, stems, wires
from tests.unit.test_mix_plan import analysis

RATE = 48_000
BALANCED = presets.load("balanced")
MOMENTS = 240
QUIET = np.full((MOMENTS, BANDS), -80.0, np.float32)


def levels(low_hertz: float, high_hertz: float, level_db: float, swing_db: float = 0.0) -> Levels:
    """A band that plays all the time, every tenth moment louder by the swing."""
    centres = np.array(CENTRES_HERTZ)
    found = QUIET.copy()
    found[:, (centres >= low_hertz) & (centres < high_hertz)] = level_db
    found[::10] += np.float32(swing_db)
    return found


def decided(
    heard: dict[str, Heard], roles: dict[str, str], settings: MixSettings | None = None, **song: object
) -> MixPlan:
    analyses = {name: analysis(-20.0, tempo_bpm=120.0) for name in heard}
    whole = analysis(**song) if song else None  # type: ignore[arg-type]
    return plan(analyses, roles, whole, BALANCED, settings or MixSettings(), heard=heard)


def bus_labels(made: MixPlan, name: str) -> set[str]:
    return {one.label for bus in made.buses if bus.name == name for one in bus.chain}


def test_music_is_brought_to_its_low_middle() -> None:
    """Too much at 200 to 350 Hz is cut, too little is lifted by less, what is at its target stays."""
    gains = []
    for level in (-10.0, -33.0, -45.0):
        music = np.maximum(levels(200.0, 350.0, level), levels(350.0, 4_000.0, -34.0))
        made = decided({"pad": Heard(music)}, {"pad": "pad"})
        kinds = [p.kind for bus in made.buses for p in bus.chain if p.label == "low_mid"]
        gains.append(kinds[0].bands[0].gain_db if kinds else 0.0)  # type: ignore[union-attr]
    assert gains[0] == pytest.approx(-BALANCED["mix.bus.low_mid_limit_db"])
    assert gains[2] > 0.0, gains
    assert gains[2] <= 0.5 * BALANCED["mix.bus.low_mid_limit_db"]
    assert low_mid_share_db(levels(200.0, 350.0, -20.0)) == pytest.approx(0.0, abs=0.2)


def test_drums_are_glued_when_they_swing_and_not_otherwise() -> None:
    """With strokes 15 dB over the rest: glue and crush; steady ones are left alone."""
    for swing, wanted in ((15.0, {"glue", "crush"}), (2.0, set())):
        made = decided({"kit": Heard(levels(60.0, 8_000.0, -40.0, swing))}, {"kit": "drums"})
        assert bus_labels(made, "drums") - {"punch"} == wanted, swing


def test_depth_by_role_and_never_for_kick_and_bass() -> None:
    """A pad sends more than the lead; kick and bass nothing; the echo follows the tempo."""
    roles = {"kick": "kick", "bass": "bass", "lead": "lead_vocal", "pad": "pad"}
    heard = {name: Heard(levels(200.0, 2_000.0, -40.0), tail_seconds=0.15) for name in roles}
    made = decided(heard, roles)
    sends = {strip.stem: {send.bus: send.level_db for send in strip.sends} for strip in made.strips}
    assert sends["kick"] == sends["bass"] == {}
    assert sends["pad"]["reverb"] > sends["lead"]["reverb"]
    effects = {bus.name: bus.chain[0].kind for bus in made.buses if bus.name in ("reverb", "delay")}
    assert isinstance(effects["reverb"], Reverb)
    assert isinstance(effects["delay"], Delay)
    assert effects["delay"].time_ms == pytest.approx(250.0)
    bypassed = decided(heard, roles, MixSettings(bypass=("reverb",)))
    assert "reverb" not in {send.bus for strip in bypassed.strips for send in strip.sends}


def test_what_has_a_room_of_its_own_sends_less_and_nothing_when_separated() -> None:
    """Measured tails decide: dry, wet and very wet; of separated stems only dry ones send."""

    def level(tail: float | None, **song: object) -> float | None:
        made = decided({"v": Heard(levels(200.0, 2_000.0, -40.0), tail_seconds=tail)}, {"v": "lead_vocal"}, **song)
        return next((send.level_db for send in made.strips[0].sends if send.bus == "reverb"), None)

    dry, wet, flooded = level(0.15), level(0.4), level(2.0)
    assert dry == BALANCED["mix.send.lead_vocal_db"]
    assert wet is not None
    assert wet < dry
    assert flooded is None
    parts = level(0.15, lufs=-14.0)
    assert parts is not None
    assert parts < dry
    assert level(0.4, lufs=-14.0) is None


def test_a_kick_inside_separated_drums_moves_the_bass() -> None:
    """By half of what it would in a mix of supplied stems, driven by the drums in the band of the strokes."""
    heard = {
        "bass": Heard(levels(40.0, 300.0, -30.0)),
        "drums": Heard(levels(40.0, 8_000.0, -40.0), strokes=Strokes(-20.0, -50.0, 2.0)),
    }
    ranges = {}
    for song in ({}, {"lufs": -14.0}):
        made = decided(heard, {"bass": "bass", "drums": "drums"}, **song)
        band = next(p.kind for s in made.strips for p in s.chain if p.label == "kick_sidechain").bands[0]  # type: ignore[union-attr]
        assert band.sidechain == "drums"
        assert -50.0 < band.threshold_db < -20.0
        ranges[bool(song)] = band.range_db
    assert ranges[True] == pytest.approx(0.5 * ranges[False])


def test_sibilants_are_turned_down_where_they_are_measured() -> None:
    """Over the tolerance a de-esser as deep as the excess; under it none; other roles none."""
    for sibilance, role, wanted in ((-6.0, "lead_vocal", 3.0), (-20.0, "lead_vocal", None), (-3.0, "hats", None)):
        made = decided({"v": Heard(levels(200.0, 2_000.0, -40.0), sibilance_db=sibilance)}, {"v": role})
        found = [p.kind for p in made.strips[0].chain if p.label == "de_esser"]
        assert [-kind.range_db for kind in found] == ([] if wanted is None else [pytest.approx(wanted)])  # type: ignore[union-attr]


def test_saturation_is_the_preset_s_and_driven_by_the_strip_s_peaks() -> None:
    """None by default; with the preset's share the drive brings the strip's own peaks into the curve."""
    heard = {"b": Heard(levels(60.0, 400.0, -30.0))}
    analyses = {"b": analysis(-20.0, sample_peak_dbfs=-9.0)}
    labels = [
        p.label for p in plan(analyses, {"b": "bass"}, None, BALANCED, MixSettings(), heard=heard).strips[0].chain
    ]
    assert "saturation" not in labels
    made = plan(analyses, {"b": "bass"}, None, presets.load("rock"), MixSettings(), heard=heard)
    kind = next(p.kind for p in made.strips[0].chain if p.label == "saturation")
    assert kind.drive_db == pytest.approx(9.0 + presets.load("rock")["mix.saturation.drive_db"])  # type: ignore[union-attr]


def test_sections_are_found_and_a_part_far_off_its_place_is_met_a_little() -> None:
    """A part that jumps by 10 dB for a third of the song: one section of its own, moved by at most the range."""
    centres = np.array(CENTRES_HERTZ)
    guitar, piano = levels(200.0, 600.0, -40.0), levels(800.0, 2_000.0, -30.0)
    guitar[80:160] += np.float32(10.0)
    guitar[80:160, (centres > 2_500.0)] = -45.0
    assert section_starts(guitar)[0] == 0
    assert any(abs(at - 80) <= 8 for at in section_starts(guitar)), section_starts(guitar)
    made = decided({"g": Heard(guitar), "p": Heard(piano)}, {"g": "guitar", "p": "keys"})
    envelope = made.strips[0].envelope
    assert envelope
    gains = [point.gain_db for point in envelope]
    assert 0.0 < max(gains) <= BALANCED["mix.sections.range_db"], gains
    assert min(gains) >= -BALANCED["mix.sections.range_db"], gains
    steady = decided({"g": Heard(levels(200.0, 600.0, -40.0)), "p": Heard(piano)}, {"g": "guitar", "p": "keys"})
    assert all(not strip.envelope for strip in steady.strips)


def test_the_tail_of_an_effect_ends_with_the_mix(tmp_path: Path) -> None:
    """The mix has the stems' length, and the reverb goes down to nothing at its end instead of breaking off."""
    parts = stems(RATE, 1)
    hall = Processor("reverb", Reverb("hall", 3.0))
    strip = Strip("s0", "other", gain_db=-60.0, sends=(Send("reverb", 24.0),))
    y, report = rendered(parts, MixPlan((strip,), (Bus("reverb", 24.0, (hall,)),)), tmp_path)
    assert y.shape[1] == report.frames == RATE
    middle, end = np.abs(y[:, RATE // 2 : RATE // 2 + 480]).max(), np.abs(y[:, -48:]).max()
    assert middle > 0.0
    assert end < 0.02 * middle, f"{end:.2e} at the end, {middle:.2e} before"


def test_too_much_reduction_is_eased_in_steps_and_rendered_again(tmp_path: Path) -> None:
    """3.6 dB on average: the threshold rises by 0.5 dB until 3 dB hold; the report carries the corrected plan."""
    parts = {"s0": stems(RATE, 1)["s0"][:1]}
    level = 20.0 * np.log10(0.1)
    press = Processor("glue", Compressor(level - 7.2, 2.0, knee_db=0.0, rms_ms=50.0))
    given = MixPlan((Strip("s0", "drums", chain=(press,)),), peak_target_dbfs=-6.0)
    _, report = rendered(parts, given, tmp_path)
    rail = next(rail for rail in report.rails if rail.name == "gain_reduction")
    assert rail.held, rail
    assert rail.rounds == 2, rail
    kind = report.plan.strips[0].chain[0].kind
    assert kind.threshold_db == pytest.approx(level - 7.2 + 1.0)  # type: ignore[union-attr]
    assert not report.warnings
    _, told = drained(mix(parts, RATE, given, spool_directory=tmp_path, corrections=0))
    assert [warning.code for warning in told.warnings] == ["GAIN_REDUCTION_HIGH"]
    assert told.warnings[0].message.endswith("on average: the plan was given and is rendered as it is")
    assert told.plan == given
    assert (told.as_given, report.as_given) == (True, False)
    rail = next(rail for rail in told.rails if rail.name == "gain_reduction")
    assert (rail.held, rail.rounds) == (False, 0)


def test_a_plan_of_ones_own_without_a_target_is_judged_too(tmp_path: Path) -> None:
    """No sample moves, however wide and loud it is; what it misses is told, but for a peak of which it says nothing."""
    parts = stems(RATE, 1)
    parts["s0"][1] *= -1.0
    bell = Processor("eq", Equalizer((FilterBand("peak", 1_000.0, 6.0),)))
    made = MixPlan((Strip("s0", "other", chain=(bell,)),), trim_db=6.0)
    blocks, told = drained(mix(parts, RATE, made, spool_directory=tmp_path, corrections=0))
    assert np.array_equal(np.concatenate(blocks, axis=1), rendered(parts, made, tmp_path)[0])
    missed = {rail.name for rail in told.rails if not rail.held}
    assert {"equalizer_gain", "correlation"} <= missed, missed
    assert "peak" not in {rail.name for rail in told.rails}
    assert {warning.code for warning in told.warnings} >= {"GUARD_RAIL_MISSED", "LOW_CORRELATION"}


def test_every_rail_is_named_in_the_report(tmp_path: Path) -> None:
    """With its value, its limit and whether it holds; a band of 6 dB is told; wires without a peak target have none."""
    parts = stems(RATE, 2)
    bell = Processor("eq", Equalizer((FilterBand("peak", 1_000.0, 6.0),)))
    made = MixPlan((Strip("s0", "other", chain=(bell,)), Strip("s1", "other")), peak_target_dbfs=-6.0)
    _, report = rendered(parts, made, tmp_path)
    rails = {rail.name: rail for rail in report.rails}
    assert {
        "equalizer_gain",
        "gain_reduction",
        "side_gain",
        "side_mid_ratio",
        "correlation",
        "crest_factor",
        "peak",
    } <= set(rails)
    assert not rails["equalizer_gain"].held
    assert rails["equalizer_gain"].value == 6.0
    assert {w.code for w in report.warnings} >= {"GUARD_RAIL_MISSED"}
    assert rendered(parts, wires(parts), tmp_path)[1].rails == ()


def test_strips_in_parallel_are_the_same_bytes(tmp_path: Path) -> None:
    """Two renders on a pool of threads are identical."""
    parts = stems(60_000, 6)
    press = Processor("glue", Compressor(-30.0, 2.0))
    room = Processor("room", Reverb("room", 0.5, mix=0.3))
    made = MixPlan(tuple(Strip(name, "other", chain=(press, room)) for name in sorted(parts)), peak_target_dbfs=-6.0)
    assert np.array_equal(rendered(parts, made, tmp_path)[0], rendered(parts, made, tmp_path)[0])


def test_hearing_a_real_excerpt_leads_to_sends_and_buses() -> None:
    """From sound to plan: a dry, syllabic voice over a pad sends to the reverb, and the plan says why."""
    t = np.arange(8 * RATE) / RATE
    gate = np.where(t % 0.5 < 0.25, 1.0, 10.0 ** (-3.0 * (t % 0.5 - 0.25) / 0.15))
    voice = np.tile(0.1 * gate * sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 12)), (2, 1)).astype(
        np.float32
    )
    pad = (0.02 * np.random.default_rng(3).standard_normal((2, 8 * RATE))).astype(np.float32)
    sounds = {"pad": pad, "voice": voice}
    analyses = {name: analyze(x, RATE) for name, x in sounds.items()}
    heard = {name: hear(x, RATE) for name, x in sounds.items()}
    made = plan(analyses, {"pad": "pad", "voice": "lead_vocal"}, None, BALANCED, MixSettings(), heard=heard)
    assert any(send.bus == "reverb" for send in made.strips[1].sends), made.notes
    assert any("reverb" in note for note in made.notes)
