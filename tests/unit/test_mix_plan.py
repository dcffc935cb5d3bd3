"""Decisions of the mixer: each answers a measured excess, and nothing else happens."""

from __future__ import annotations

import dataclasses

import pytest

from outboard import presets
from outboard.audio.analysis import Analysis, BandLevel, StereoBand
from outboard.audio.processors import BandExtender, Compressor, DynamicEqualizer, Equalizer, StereoField, StereoWidth
from outboard.audio.stems import role_from_name
from outboard.errors import InvalidInput
from services.mixer.brief import MAX_EQUALIZER_DB
from services.mixer.console import MixPlan, MixSettings
from services.mixer.plan import plan
from services.mixer.strips import BLEED_LU, MAX_MOVE_DB

EDGES = (20.0, 60.0, 200.0, 500.0, 2_000.0, 6_000.0, 16_000.0)
SEPARATED = ("vocals", "drums", "bass", "other")
BALANCED = presets.load("balanced")


def analysis(lufs: float | None = -14.0, *, deviations: tuple[float, ...] = (0.0,) * 6, **changes: object) -> Analysis:
    """Measurements of a blameless stereo recording, with changes."""
    bands = tuple(BandLevel(a, b, -8.0 + d, -8.0, d) for a, b, d in zip(EDGES[:-1], EDGES[1:], deviations, strict=True))
    blameless = Analysis(
        frames=48_000 * 60,
        sample_rate_hertz=48_000,
        channels=2,
        integrated_lufs=lufs,
        max_momentary_lufs=lufs,
        max_short_term_lufs=lufs,
        loudness_range_lu=5.0,
        true_peak_dbtp=-1.0,
        sample_peak_dbfs=-1.0,
        rms_dbfs=lufs,
        crest_factor_db=15.0,
        band_levels=bands,
        correlation=0.8,
        mid_side_ratio_db=-10.0,
        width=0.2,
        low_correlation=1.0,
        bandwidth_hertz=20_000.0,
        tempo_bpm=120.0,
        key="C major",
        key_confidence=0.5,
        shimmer_index=0.0,
        mud_index=0.05,
        spectral_hole_ratio=0.0,
        hard_panning_index=0.02,
        flat_dynamics_index=0.02,
        clipped_samples=0,
        dc_offset=(0.0, 0.0),
        mean=0.0,
        deviation=0.1,
        noise_floor_dbfs=-70.0,
        third_octaves=tuple(
            BandLevel(1000.0 * 10 ** ((k - 0.5) / 10), 1000.0 * 10 ** ((k + 0.5) / 10), -14.5, -14.5, 0.0)
            for k in range(-15, 13)
        ),
        stereo_bands=tuple(
            StereoBand(150.0 * 2 ** (k / 3), 150.0 * 2 ** ((k + 1) / 3), -11.0, 0.01) for k in range(20)
        ),
    )
    return dataclasses.replace(blameless, **changes)  # type: ignore[arg-type]


def separated(**changes: Analysis) -> dict[str, Analysis]:
    """Four stems at ordinary levels under a song of -14 LUFS; the lows are where they belong."""
    bright = (-30.0, -25.0, 0.0, 0.0, 0.0, 0.0)
    found = {
        "vocals": analysis(-18.0, deviations=bright),
        "drums": analysis(-19.0),
        "bass": analysis(-21.0),
        "other": analysis(-24.0, deviations=bright),
    }
    return found | changes


def decided(
    stems: dict[str, Analysis],
    song: Analysis | None,
    settings: MixSettings | None = None,
    roles: dict[str, str] | None = None,
) -> MixPlan:
    return plan(stems, roles or {}, song, BALANCED, settings or MixSettings())


def labels(plan_: MixPlan) -> set[str]:
    return {p.label for strip in plan_.strips for p in strip.chain} | {p.label for p in plan_.master_chain}


def kind_of(plan_: MixPlan, label: str) -> object:
    return next(
        p.kind for chain in (plan_.master_chain, *(s.chain for s in plan_.strips)) for p in chain if p.label == label
    )


def test_a_clean_song_keeps_its_balance_and_gets_nothing_but_the_high_passes() -> None:
    """No fault measured, no move made: faders at 0 dB and only the harmless high-passes."""
    made = decided(separated(), analysis())
    assert labels(made) == {"high_pass"}
    assert [s.gain_db for s in made.strips] == [0.0] * 4
    assert made.peak_target_dbfs == -6.0


def test_high_pass_stays_off_a_stem_that_carries_the_songs_lows() -> None:
    """Separated stems bleed; cutting what the song needs down there would thin it."""
    made = decided(separated(other=analysis(-18.0)), analysis())
    strips = {s.stem: {p.label for p in s.chain} for s in made.strips}
    assert strips["vocals"] == {"high_pass"}
    assert strips["other"] == set()
    assert any("lows" in note for note in made.notes)


def test_mud_is_cut_in_proportion_and_within_the_guard_rails() -> None:
    """The deeper the index, the deeper the cut; never beyond 3 dB, which is what a strip may lose on average."""
    depths = []
    for index in (0.1, 0.3, 0.6, 1.0):
        made = decided(separated(), analysis(mud_index=index))
        band = kind_of(made, "clean_up").bands[0] if "clean_up" in labels(made) else None
        depths.append(-band.range_db if band else 0.0)
    assert depths == sorted(depths)
    assert depths[0] == 0.0
    assert 2.0 < depths[-1] <= 3.0


def test_sides_are_narrowed_only_where_a_song_is_too_wide() -> None:
    """Bands of a wide song come down until mean and sum are a record's, never up."""
    bands = tuple(dataclasses.replace(b, mid_side_ratio_db=-3.0) for b in analysis().stereo_bands)
    field = kind_of(decided(separated(), analysis(stereo_bands=bands, mid_side_ratio_db=-4.0)), "stereo_field")
    assert isinstance(field, StereoField)
    # 4.5 dB bring the mean from -3 to -7.5 dB; the sum comes from -4 to under -6 with it.
    thirds = [b for b in field.bands if b.low_hertz >= 150.0]
    assert all(b.side_gain == pytest.approx(10.0 ** (-4.5 / 20.0), abs=0.01) for b in thirds), thirds[0]
    one = (dataclasses.replace(bands[0], mid_side_ratio_db=0.0), *analysis().stereo_bands[1:])
    assert "stereo_field" not in labels(decided(separated(), analysis(stereo_bands=one))), "one wide band is taste"


def test_leaning_bands_are_brought_back_only_when_panning_is_a_fault() -> None:
    """A leaning band of a record (index low) stays; the same in a hard-panned song moves to the middle."""
    bands = tuple(dataclasses.replace(b, lean=0.3 * (-1) ** k) for k, b in enumerate(analysis().stereo_bands))
    assert "stereo_field" not in labels(decided(separated(), analysis(stereo_bands=bands, hard_panning_index=0.1)))
    field = kind_of(decided(separated(), analysis(stereo_bands=bands, hard_panning_index=0.8)), "stereo_field")
    assert [round(b.recentre, 2) for b in field.bands[:2]] == [0.25, -0.25]


def test_pressed_dynamics_are_expanded_and_lively_ones_are_not() -> None:
    """A crest under the target is met by upward expansion with a bounded range."""
    assert "expander" not in labels(decided(separated(), analysis(crest_factor_db=14.5)))
    expander = kind_of(decided(separated(), analysis(crest_factor_db=10.0)), "expander")
    assert isinstance(expander, Compressor)
    assert 0.6 < expander.ratio < 0.8
    assert expander.range_db <= 4.0


def test_a_missing_top_is_extended_and_a_full_one_is_not() -> None:
    """15 kHz is no recording's end, 18 kHz may be; a stem that was extended before counts."""
    low = {n: dataclasses.replace(a, bandwidth_hertz=14_900.0) for n, a in separated().items()}
    air = kind_of(decided(low, analysis(bandwidth_hertz=15_100.0)), "air")
    assert isinstance(air, BandExtender)
    assert air.cutoff_hertz == 15_100.0
    assert "air" not in labels(decided(low, analysis(bandwidth_hertz=18_000.0)))
    assert "air" not in labels(decided(separated(), analysis(bandwidth_hertz=15_100.0)))


def test_separated_stems_move_at_most_3_db_and_bleed_is_never_raised() -> None:
    """A buried voice is helped a little, a roaring one lowered a little, a stem of mere bleed is left where it is."""
    for lufs in (-16.0 - BLEED_LU, -40.0, -35.0, -30.0, -18.0, -5.0, 0.0):
        made = decided(separated(vocals=analysis(lufs)), analysis())
        gain = next(s.gain_db for s in made.strips if s.stem == "vocals")
        assert abs(gain) <= MAX_MOVE_DB, f"{gain} dB at {lufs} LUFS"
        if lufs <= -14.0 - BLEED_LU:
            assert gain <= 0.0, f"bleed at {lufs} LUFS raised by {gain} dB"
    assert (
        next(s.gain_db for s in decided(separated(vocals=analysis(-32.0)), analysis()).strips if s.stem == "vocals")
        > 0.0
    )


def test_supplied_stems_are_staged_by_role() -> None:
    """Each lands on the working level plus its role's own; the user's faders are respected on request."""
    stems = {"kick": analysis(-30.0), "vox_lead": analysis(-12.0), "pad": analysis(-20.0)}
    made = decided(stems, None)
    for strip in made.strips:
        landed = stems[strip.stem].integrated_lufs + strip.gain_db
        assert landed == pytest.approx(BALANCED["mix.working_level_lufs"] + BALANCED[f"mix.level.{strip.role}_db"])
    assert [s.gain_db for s in decided(stems, None, MixSettings(respect_user_gains=True)).strips] == [0.0] * 3
    assert made.master_chain == ()


def test_supplied_stems_that_are_too_wide_are_narrowed_and_low_ones_are_mono_below() -> None:
    """Width answers the strip's own measurement within the cap."""
    made = decided({"pad": analysis(mid_side_ratio_db=0.0), "kick": analysis()}, None)
    widths = {s.stem: p.kind for s in made.strips for p in s.chain if p.label == "width"}
    assert isinstance(widths["pad"], StereoWidth)
    assert widths["pad"].side_gain == pytest.approx(10 ** (-10 / 20), abs=0.01)
    assert widths["kick"].mono_below_hertz == BALANCED["mix.mono_below_hertz"]


def test_a_dull_voice_gets_presence_within_4_db() -> None:
    """Presence answers a measured lack."""
    dull = separated(vocals=analysis(-18.0, deviations=(-30.0, -25.0, 0.0, 0.0, -16.0, 0.0)))
    made = decided(dull, analysis())
    bell = kind_of(made, "presence")
    assert isinstance(bell, Equalizer)
    assert 1.0 < bell.bands[0].gain_db <= MAX_EQUALIZER_DB


def test_drums_are_compressed_when_their_peaks_stick_out() -> None:
    """And not otherwise."""
    assert "compressor" not in labels(decided(separated(), analysis()))
    made = decided(separated(drums=analysis(-19.0, crest_factor_db=24.0)), analysis())
    assert {s.stem for s in made.strips for p in s.chain if p.label == "compressor"} == {"drums"}


def test_intensity_scales_the_treatment_away() -> None:
    """At 0 only the high-passes remain; at 50 cuts are half as deep."""
    song = analysis(mud_index=1.0, crest_factor_db=10.0, bandwidth_hertz=15_000.0, hard_panning_index=0.9)
    stems = {n: dataclasses.replace(a, bandwidth_hertz=15_000.0) for n, a in separated().items()}
    assert labels(decided(stems, song, MixSettings(intensity=0.0))) == {"high_pass"}
    full, half = (kind_of(decided(stems, song, MixSettings(intensity=i)), "clean_up") for i in (100.0, 50.0))
    assert isinstance(full, DynamicEqualizer)
    assert half.bands[0].range_db == pytest.approx(full.bands[0].range_db / 2)


def test_bypass_takes_out_by_label_and_as_a_whole() -> None:
    """Single processors stay in the plan, marked; `bypass_all` and `passthrough` leave plain wires without a trim."""
    made = decided(separated(), analysis(mud_index=1.0), MixSettings(bypass=("clean_up",)))
    assert all(p.bypass == (p.label == "clean_up") for s in made.strips for p in s.chain)
    for settings in (MixSettings(bypass_all=True), MixSettings(engine="passthrough")):
        made = decided(separated(), analysis(mud_index=1.0), settings)
        assert all(s.chain == () and s.gain_db == 0.0 for s in made.strips)
        assert (made.master_chain, made.trim_db, made.peak_target_dbfs) == ((), 0.0, None)


def test_a_silent_stem_passes_through() -> None:
    """What has no loudness is not treated."""
    made = decided(separated(other=analysis(None, rms_dbfs=None)), analysis())
    assert next(s for s in made.strips if s.stem == "other").chain == ()


def test_the_plan_does_not_depend_on_the_order_of_the_stems() -> None:
    """Pure: the same measurements give the same plan."""
    stems = separated()
    assert decided(stems, analysis()) == decided(dict(reversed(stems.items())), analysis())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (MixSettings(width_cap=1.5), "settings.width_cap"),
        (MixSettings(peak_target_dbfs=1.0), "settings.peak_target_dbfs"),
        (MixSettings(intensity=-1.0), "settings.intensity"),
        (MixSettings(intensity=float("nan")), "settings.intensity"),
        (MixSettings(bypass=("presense",)), "settings.bypass"),
        (MixSettings(engine="consol"), "settings.engine"),
    ],
    ids=str,
)
def test_settings_out_of_range_name_their_field(settings: MixSettings, field: str) -> None:
    """Each wrong setting is a violation of its own, with the range or the nearest name."""
    with pytest.raises(InvalidInput) as caught:
        decided(separated(), analysis(), settings)
    assert [v.field for v in caught.value.violations] == [field]


def test_no_stems_and_thirteen_stems_are_refused() -> None:
    """A mix takes 1 to 12."""
    for count in (0, 13):
        with pytest.raises(InvalidInput, match="1 to 12"):
            decided({f"s{k}": analysis() for k in range(count)}, None)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vocals", "lead_vocal"),
        ("drums", "drums"),
        ("bass", "bass"),
        ("other", "other"),
        ("kick", "kick"),
        ("01_Kick_In", "kick"),
        ("snare-top", "snare"),
        ("hats", "hats"),
        ("HiHat", "hats"),
        ("trap_beat", "drums"),
        ("breakbeat", "drums"),
        ("vox_lead", "lead_vocal"),
        ("bgvox_1", "backing_vocal"),
        ("Backing Vocals", "backing_vocal"),
        ("Sub Bass", "bass"),
        ("keys", "keys"),
        ("minilogue_synth", "synth"),
        ("pads", "pad"),
        ("microcosm_effect", "fx"),
        ("E-Gtr 2", "guitar"),
        ("basement", "other"),
        ("", "other"),
    ],
)
def test_names_suggest_roles(name: str, role: str) -> None:
    """Words count, not parts of words."""
    assert role_from_name(name) == role


@pytest.mark.parametrize(("given", "role"), [("", "kick"), ("unspecified", "kick"), ("pad", "pad")])
def test_a_given_role_beats_the_name(given: str, role: str) -> None:
    """Only a role that was left open is read off the name."""
    assert decided({"kick": analysis()}, None, roles={"kick": given}).strips[0].role == role
