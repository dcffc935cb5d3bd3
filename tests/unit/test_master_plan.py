"""The master's plan: pure, restrained, and strict about what it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboard.audio.analysis import Analysis, BandLevel
from outboard.audio.processors import (
    Compressor,
    DynamicEqualizer,
    LinearPhaseEqualizer,
    MultibandCompressor,
    Saturator,
    StereoWidth,
    TransientShaper,
)
from services.master.plan import plan
from services.master.settings import MasterPlan, MasterSettings, check_plan

BANDS = ((20.0, 60.0), (60.0, 200.0), (200.0, 500.0), (500.0, 2000.0), (2000.0, 6000.0), (6000.0, 16000.0))
THIRDS = tuple(1000.0 * 10.0 ** (k / 10.0) for k in range(-15, 13))
ANALYSIS = Analysis(
    frames=480_000, sample_rate_hertz=48000, channels=2, integrated_lufs=-18.0, max_momentary_lufs=-14.0,
    max_short_term_lufs=-15.0, loudness_range_lu=5.0, true_peak_dbtp=-2.0, sample_peak_dbfs=-2.2, rms_dbfs=-18.0,
    crest_factor_db=15.8, band_levels=tuple(BandLevel(low, high, -8.0, -8.0, 0.0) for low, high in BANDS),
    correlation=0.7, mid_side_ratio_db=-9.0, width=0.3, low_correlation=0.99, bandwidth_hertz=16000.0, tempo_bpm=120.0,
    key="A minor", key_confidence=0.4, shimmer_index=0.02, mud_index=0.03, spectral_hole_ratio=0.0,
    hard_panning_index=0.0, flat_dynamics_index=0.02, clipped_samples=0, dc_offset=(0.0, 0.0), mean=0.0, deviation=0.1,
    noise_floor_dbfs=-60.0,
    third_octaves=tuple(BandLevel(hertz / 1.122, hertz * 1.122, -14.0, -14.0, 0.0) for hertz in THIRDS),
)  # fmt: skip


def points(settings: MasterSettings, analysis: Analysis = ANALYSIS) -> dict[float, float]:
    """The equaliser's curve above the rumble filter."""
    kind = plan(analysis, settings).chain[0].kind
    assert isinstance(kind, LinearPhaseEqualizer)
    return {point.frequency_hertz: point.gain_db for point in kind.points if point.frequency_hertz > 30.5}


def off(low_hertz: float, high_hertz: float, deviation_db: float) -> Analysis:
    """The analysis with a region off its target."""
    levels = tuple(
        replace(band, deviation_db=deviation_db) if low_hertz <= band.low_hertz * 1.122 <= high_hertz else band
        for band in ANALYSIS.third_octaves
    )
    return replace(ANALYSIS, third_octaves=levels)


def kinds(decided: MasterPlan) -> dict[str, object]:
    """The chain by label."""
    return {processor.label: processor.kind for processor in decided.chain}


@pytest.mark.parametrize(("intent", "target", "ceiling"), [("streaming", -14.0, -1.0), ("loud", -10.0, -1.0)])
def test_intents_have_their_targets(intent: str, target: float, ceiling: float) -> None:
    """Each intent comes with a loudness and a ceiling; the drive is what is missing."""
    decided = plan(ANALYSIS, MasterSettings(intent=intent))
    assert (decided.target_lufs, decided.ceiling_dbtp) == (target, ceiling)
    assert decided.drive_db == pytest.approx(target + 18.0)
    assert decided.engine == "chain"


def test_given_targets_win() -> None:
    """What the caller asks for goes before the intent's own numbers."""
    decided = plan(ANALYSIS, MasterSettings(intent="streaming", target_lufs=-16.5, ceiling_dbtp=-2.0))
    assert (decided.target_lufs, decided.ceiling_dbtp) == (-16.5, -2.0)


def test_what_is_within_tolerance_is_left_alone() -> None:
    """A song whose spectrum and indices are within tolerance gets a flat curve and nothing else."""
    assert set(points(MasterSettings(), off(200.0, 500.0, 2.5)).values()) == {0.0}
    assert len(plan(ANALYSIS, MasterSettings()).chain) == 1


def test_a_deviation_is_corrected_within_limits() -> None:
    """A region that is off is taken back by part of the excess, never by more than 3 dB, and scaled by intensity."""
    wide = off(150.0, 800.0, 6.0)
    assert -1.6 < min(points(MasterSettings(), wide).values()) < -1.0
    assert min(points(MasterSettings(), off(150.0, 800.0, 15.0)).values()) == -3.0
    assert min(points(MasterSettings(intensity=50.0), off(150.0, 800.0, 15.0)).values()) == -1.5
    assert set(points(MasterSettings(intensity=0.0), off(150.0, 800.0, 15.0)).values()) == {0.0}


def test_a_single_note_is_no_tone() -> None:
    """One third of an octave that stands out by 8 dB moves the curve by less than half a decibel."""
    assert min(points(MasterSettings(), off(990.0, 1010.0, 8.0)).values()) > -0.5


def test_bottom_and_top_are_hardly_lifted() -> None:
    """Below 60 Hz and above 6 kHz generated songs hold noise: missing level there is not invented."""
    assert max(gain for hertz, gain in points(MasterSettings(), off(20.0, 60.0, -15.0)).items() if hertz < 60.0) == 0.0
    assert max(points(MasterSettings(), off(5000.0, 20000.0, -15.0)).values()) <= 3.0
    lifted = points(MasterSettings(), off(5000.0, 20000.0, -15.0))
    assert max(gain for hertz, gain in lifted.items() if hertz > 6000.0) == 1.0


def test_a_profile_has_a_spectrum_of_its_own() -> None:
    """What a profile wants more of is no deviation: bass at +6 dB is cut for one profile and kept for another."""
    bassy = off(20.0, 120.0, 8.0)
    assert min(points(MasterSettings(), bassy).values()) < -1.0
    kind = plan(bassy, MasterSettings(), {"master.target_sub_db": 8.0, "master.target_low_db": 8.0}).chain[0].kind
    assert isinstance(kind, LinearPhaseEqualizer)
    assert all(abs(point.gain_db) < 0.3 for point in kind.points if 30.5 < point.frequency_hertz < 100.0)


def test_measured_faults_are_cut_at_their_moments() -> None:
    """Mud and shimmer are met by dynamic bands, and half as much by the curve, with a sentence that tells it."""
    faulty = replace(ANALYSIS, mud_index=0.8, shimmer_index=0.5)
    decided = plan(faulty, MasterSettings())
    moments = kinds(decided)["moments"]
    assert isinstance(moments, DynamicEqualizer)
    assert [(band.frequency_hertz, round(band.range_db, 2)) for band in moments.bands] == [
        (320.0, -2.4),
        (9800.0, -1.5),
    ]
    curve = points(MasterSettings(), faulty)
    assert -1.2 <= min(gain for hertz, gain in curve.items() if hertz < 700.0) <= -1.0
    assert -0.75 <= min(gain for hertz, gain in curve.items() if hertz > 6000.0) <= -0.6
    assert "Mud" in " ".join(decided.notes)
    assert "Shimmer" in " ".join(decided.notes)


def test_harshness_is_tamed_where_the_presence_stands_out() -> None:
    """A region of 3 to 6 kHz above its target gets a dynamic band whose threshold is its own share of the whole."""
    decided = plan(off(2500.0, 7000.0, 6.0), MasterSettings())
    moments = kinds(decided)["moments"]
    assert isinstance(moments, DynamicEqualizer)
    (band,) = moments.bands
    assert band.frequency_hertz == 4200.0
    assert band.range_db == pytest.approx(-2.0)
    assert band.relative_threshold_db is not None
    assert -14.0 < band.relative_threshold_db < -5.0


def test_only_lively_songs_are_compressed() -> None:
    """Compression needs a wide loudness range, a high crest factor and dynamics that are not spent."""
    lively = replace(ANALYSIS, loudness_range_lu=12.0, crest_factor_db=17.0)
    glue = kinds(plan(lively, MasterSettings()))["glue"]
    assert isinstance(glue, MultibandCompressor)
    assert [band.high_hertz for band in glue.bands] == [120.0, 800.0, 5000.0, 0.0]
    assert all(1.0 < band.compressor.ratio <= 1.5 for band in glue.bands)
    for spent in (
        replace(lively, flat_dynamics_index=0.6),
        replace(lively, crest_factor_db=9.0),
        replace(lively, loudness_range_lu=4.0),
    ):
        assert "glue" not in kinds(plan(spent, MasterSettings()))


def test_loud_masters_get_punch() -> None:
    """From -13 LUFS on onsets are lifted, in scale with intensity and with what the limiter will have to take."""
    punch = kinds(plan(ANALYSIS, MasterSettings(intent="loud")))["punch"]
    assert isinstance(punch, TransientShaper)
    assert (punch.attack_db, punch.sustain_db, punch.low_hertz) == (7.0, -1.0, 800.0)
    half = kinds(plan(ANALYSIS, MasterSettings(intent="loud", intensity=50.0)))["punch"]
    assert isinstance(half, TransientShaper)
    assert (half.attack_db, half.sustain_db) == (3.5, -0.5)
    low = kinds(plan(replace(ANALYSIS, true_peak_dbtp=-6.0), MasterSettings(intent="loud")))["punch"]
    assert isinstance(low, TransientShaper)
    assert low.attack_db == pytest.approx(3.5)
    assert set(kinds(plan(ANALYSIS, MasterSettings(intent="loud", intensity=0.0)))) == {"tone"}
    assert "punch" not in kinds(plan(ANALYSIS, MasterSettings(intent="custom", target_lufs=-16.0)))


@pytest.mark.parametrize(
    ("settings", "limiting", "crest"),
    [
        (MasterSettings(), 3.0, 8.0),
        (MasterSettings(intent="loud"), 4.0, 6.0),
        (MasterSettings(intent="loud", target_lufs=-8.0), 5.0, 5.0),
        (MasterSettings(target_lufs=-9.0, ceiling_dbtp=-0.5, profile="club"), 4.5, 5.5),
        (MasterSettings(intent="custom", target_lufs=-12.0), 3.5, 7.0),
        (MasterSettings(intent="loud", target_lufs=-16.0), 3.0, 8.0),
    ],
)
def test_rails_follow_the_target(settings: MasterSettings, limiting: float, crest: float) -> None:
    """What loudness may cost depends on how loud it is to be, whatever the intent or platform is called."""
    rails = plan(ANALYSIS, settings).guard_rails
    assert (rails.average_limiting_db, rails.crest_factor_db) == (limiting, crest)
    assert any(f"{limiting:.1f} dB of limiting" in note for note in plan(ANALYSIS, settings).notes)


def test_the_limiter_moves_by_how_much_it_has_to_take() -> None:
    """Loud masters release their strokes, quiet ones dip them; peaks far over the ceiling are dipped again."""
    assert plan(ANALYSIS, MasterSettings()).limiter.dip_share == 0.6
    near = replace(ANALYSIS, true_peak_dbtp=-6.0)
    shares = [
        plan(replace(near, true_peak_dbtp=near.true_peak_dbtp + more), MasterSettings(intent="loud")).limiter.dip_share
        for more in (0.0, 3.0, 4.0, 6.0)
    ]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] == 0.6


def test_saturation_is_an_option_of_the_profile() -> None:
    """Where a profile asks for it, loud masters of songs that are not dense already are saturated above the bass, each
    band with the drive that its own level needs.
    """
    preset = {"master.saturation_mix": 0.4}
    bright = off(5000.0, 20_000.0, 0.0)
    soft = replace(
        bright,
        third_octaves=tuple(
            replace(band, level_db=band.level_db - 10.0) if band.low_hertz > 5000.0 else band
            for band in bright.third_octaves
        ),
    )
    found = kinds(plan(soft, MasterSettings(intent="loud", intensity=50.0), preset))
    bands = [found[f"density_{name}"] for name in ("low", "middle", "top")]
    assert all(isinstance(band, Saturator) for band in bands)
    assert [(band.low_hertz, band.high_hertz) for band in bands] == [(150.0, 800.0), (800.0, 5000.0), (5000.0, None)]
    assert [band.mix for band in bands] == pytest.approx([0.2] * 3)
    assert bands[2].drive_db > bands[1].drive_db + 5.0, "what is soft needs more drive to reach the bend"
    dense = replace(ANALYSIS, flat_dynamics_index=0.6)
    assert not any("density" in label for label in kinds(plan(dense, MasterSettings(intent="loud"), preset)))
    assert not any("density" in label for label in kinds(plan(ANALYSIS, MasterSettings(), preset)))


def test_saturation_is_bound_by_the_sample_rate() -> None:
    """At 11025 Hz there is no top to saturate, and the middle ends at Nyquist: the plan can be rendered."""
    decided = plan(
        replace(ANALYSIS, sample_rate_hertz=11_025), MasterSettings(intent="loud"), {"master.saturation_mix": 0.4}
    )
    found = {label: kind for label, kind in kinds(decided).items() if label.startswith("density")}
    assert list(found) == ["density_low", "density_middle"]
    check_plan(decided, 11_025)


def test_a_voice_is_spared() -> None:
    """Where a voice is what is heard, its band is compressed, saturated and cut by half; a sentence tells it."""
    lively = replace(off(2500.0, 7000.0, 6.0), loudness_range_lu=12.0, crest_factor_db=17.0, vocal_dominance=0.05)
    preset = {"master.saturation_mix": 0.4}
    without, sung = (
        plan(song, MasterSettings(intent="loud"), preset) for song in (lively, replace(lively, vocal_dominance=0.5))
    )
    assert "No voice carries it (5%" in " ".join(without.notes)
    assert "A voice makes 50%" in " ".join(sung.notes)
    glue, spared = kinds(without)["glue"], kinds(sung)["glue"]
    ratios = [[band.compressor.ratio for band in kind.bands] for kind in (glue, spared)]
    assert ratios[0] == [1.5] * 4
    assert ratios[1] == [1.5, 1.5, 1.25, 1.5]
    assert kinds(sung)["density_middle"].mix == pytest.approx(0.2)
    assert kinds(sung)["density_top"].mix == pytest.approx(0.4)
    cuts = [kinds(decided)["moments"].bands[0].range_db for decided in (without, sung)]
    assert cuts == pytest.approx([-2.0, -1.0])


def test_transient_density_sets_how_fast_gains_move() -> None:
    """Few onsets: little to lift. Many: longer attacks, shorter releases. Between: as ever. Each in a sentence."""
    lively = replace(ANALYSIS, loudness_range_lu=12.0, crest_factor_db=17.0)
    told = {}
    for onsets in (0.2, 3.0, 9.0):
        decided = plan(replace(lively, onsets_per_second=onsets), MasterSettings(intent="loud"))
        told[onsets] = decided
        assert f"{onsets:.1f} sounds begin per second" in " ".join(decided.notes)
    assert kinds(told[0.2])["punch"].attack_db == pytest.approx(0.2 * kinds(told[3.0])["punch"].attack_db)
    assert (
        kinds(told[9.0])["glue"].bands[0].compressor.attack_ms
        > 80.0
        > 68.0
        > (kinds(told[3.0])["glue"].bands[0].compressor.attack_ms)
    )
    assert told[3.0].limiter.release_ms == 120.0
    assert told[9.0].limiter.release_ms < 80.0


def test_spent_dynamics_and_the_profile_are_told() -> None:
    """Whether dynamics are spent, and what the profile wants, stand in the notes of every plan of the chain."""
    notes = " ".join(plan(ANALYSIS, MasterSettings()).notes)
    assert "are not spent (flat-dynamics index 0.02" in notes
    assert "asks for nothing beyond the common spectrum" in notes
    notes = " ".join(
        plan(replace(ANALYSIS, flat_dynamics_index=0.6), MasterSettings(), {"master.target_sub_db": 2.0}).notes
    )
    assert "are spent: it is neither compressed nor saturated (flat-dynamics index 0.60" in notes
    assert "asks for +2.0 dB around 35 Hz" in notes


def test_harshness_at_the_top_is_tamed_once() -> None:
    """8 to 12 kHz above target is cut at its moments, where nothing shimmers too; one band serves both faults."""
    sharp = off(8000.0, 12_000.0, 6.0)
    (band,) = kinds(plan(sharp, MasterSettings()))["moments"].bands
    assert (band.frequency_hertz, band.range_db) == (9800.0, pytest.approx(-2.0))
    (both,) = kinds(plan(replace(sharp, shimmer_index=1.0), MasterSettings()))["moments"].bands
    assert (both.frequency_hertz, both.range_db) == (9800.0, pytest.approx(-3.0))


def test_a_parallel_path_is_an_option_of_the_profile() -> None:
    """None by default; a profile's share becomes the mix of a compressor."""
    assert "parallel" not in kinds(plan(ANALYSIS, MasterSettings()))
    kind = kinds(plan(ANALYSIS, MasterSettings(intensity=50.0), {"master.parallel_mix": 0.4}))["parallel"]
    assert isinstance(kind, Compressor)
    assert kind.mix == pytest.approx(0.2)


def test_wide_sides_and_wide_bass_are_reined_in() -> None:
    """Bass that differs between the channels becomes mono; sides over the limit are lowered; correlation stays."""
    wide = replace(ANALYSIS, low_correlation=0.5, mid_side_ratio_db=-3.0)
    kind = kinds(plan(wide, MasterSettings()))["field"]
    assert isinstance(kind, StereoWidth)
    assert kind.mono_below_hertz == 120.0
    assert 0.8 < kind.side_gain < 1.0
    out_of_phase = kinds(plan(replace(wide, mid_side_ratio_db=3.0), MasterSettings()))["field"]
    assert isinstance(out_of_phase, StereoWidth)
    side = out_of_phase.side_gain**2 * 10 ** (3.0 / 10)
    assert (1 - side) / (1 + side) >= 0.1 - 1e-9, "correlation falls under the guard-rail"
    narrow = replace(ANALYSIS, low_correlation=0.999, mid_side_ratio_db=-9.0)
    assert "field" not in kinds(plan(narrow, MasterSettings()))
    assert "field" not in kinds(plan(replace(wide, channels=1, mid_side_ratio_db=None), MasterSettings()))


def test_the_crest_rail_leaves_something_to_spend() -> None:
    """8 dB for streaming, 6 dB otherwise; a song near its rail may still lose 2 dB."""
    assert plan(ANALYSIS, MasterSettings()).guard_rails.crest_factor_db == 8.0
    assert plan(ANALYSIS, MasterSettings(intent="loud")).guard_rails.crest_factor_db == 6.0
    dense = replace(ANALYSIS, crest_factor_db=9.0)
    assert plan(dense, MasterSettings()).guard_rails.crest_factor_db == 7.0


def test_silence_has_no_target() -> None:
    """Without a loudness none is aimed at, and the plan says so."""
    silent = replace(
        ANALYSIS,
        integrated_lufs=None,
        band_levels=(),
        third_octaves=(),
        crest_factor_db=None,
        mud_index=None,
        shimmer_index=None,
    )
    decided = plan(silent, MasterSettings())
    assert decided.target_lufs is None
    assert decided.drive_db == 0.0
    assert "no loudness" in decided.notes[0]


def test_presets_set_numbers_by_name() -> None:
    """A preset's numbers replace the defaults; those of other stages are ignored."""
    preset = {"master.tolerance_db": 10.0, "mix.width": 3.0}
    kind = plan(off(150.0, 800.0, 6.0), MasterSettings(), preset).chain[0].kind
    assert isinstance(kind, LinearPhaseEqualizer)
    assert all(point.gain_db == 0.0 for point in kind.points if point.frequency_hertz >= 30.0)


def test_a_plan_is_pure() -> None:
    """The same analysis and settings give the same plan."""
    assert plan(ANALYSIS, MasterSettings(intent="loud")) == plan(ANALYSIS, MasterSettings(intent="loud"))
