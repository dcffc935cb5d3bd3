"""The master's plan: pure, restrained, and strict about what it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboard.audio.analysis import Analysis, BandLevel
from outboard.errors import InvalidInput
from services.master.plan import plan
from services.master.settings import (
    Compressor,
    CurvePoint,
    DeliverableSpec,
    LinearPhaseEqualizer,
    MasterSettings,
    Processor,
    check_plan,
)

BANDS = ((20.0, 60.0), (60.0, 200.0), (200.0, 500.0), (500.0, 2000.0), (2000.0, 6000.0), (6000.0, 16000.0))
ANALYSIS = Analysis(
    frames=480_000, sample_rate_hertz=48000, channels=2, integrated_lufs=-18.0, max_momentary_lufs=-14.0,
    max_short_term_lufs=-15.0, loudness_range_lu=5.0, true_peak_dbtp=-2.0, sample_peak_dbfs=-2.2, rms_dbfs=-18.0,
    crest_factor_db=15.8, band_levels=tuple(BandLevel(low, high, -8.0, -8.0, 0.0) for low, high in BANDS),
    correlation=0.7, mid_side_ratio_db=-9.0, width=0.3, low_correlation=0.9, bandwidth_hertz=16000.0, tempo_bpm=120.0,
    key="A minor", key_confidence=0.4, shimmer_index=0.02, mud_index=0.03, spectral_hole_ratio=0.0,
    hard_panning_index=0.0, flat_dynamics_index=0.02, clipped_samples=0, dc_offset=(0.0, 0.0), mean=0.0, deviation=0.1,
    noise_floor_dbfs=-60.0,
)  # fmt: skip


def points(settings: MasterSettings, analysis: Analysis = ANALYSIS) -> dict[float, float]:
    """The equaliser's curve above the rumble filter."""
    kind = plan(analysis, settings).chain[0].kind
    assert isinstance(kind, LinearPhaseEqualizer)
    return {point.frequency_hertz: point.gain_db for point in kind.points if point.frequency_hertz > 35.0}


def off(index: int, deviation_db: float) -> Analysis:
    """The analysis with one band off its target."""
    bands = list(ANALYSIS.band_levels)
    bands[index] = replace(bands[index], deviation_db=deviation_db)
    return replace(ANALYSIS, band_levels=tuple(bands))


@pytest.mark.parametrize(
    ("intent", "target", "ceiling"), [("streaming", -14.0, -1.0), ("loud", -10.0, -1.0), ("custom", -14.0, -1.0)]
)
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
    """A song whose bands and indices are within tolerance gets a flat curve and no compressor."""
    assert set(points(MasterSettings()).values()) == {0.0}
    assert len(plan(ANALYSIS, MasterSettings()).chain) == 1


def test_a_deviation_is_corrected_within_limits() -> None:
    """A band that is off is taken back by part of the excess, never by more than 3 dB, and scaled by intensity."""
    assert min(points(MasterSettings(), off(2, 6.0)).values()) == pytest.approx(-1.0)
    assert min(points(MasterSettings(), off(2, 30.0)).values()) == -3.0
    assert min(points(MasterSettings(intensity=50.0), off(2, 30.0)).values()) == -1.5
    assert set(points(MasterSettings(intensity=0.0), off(2, 30.0)).values()) == {0.0}


def test_bottom_and_top_are_hardly_lifted() -> None:
    """Below 60 Hz and above 6 kHz generated songs hold noise: missing level there is not invented."""
    assert max(points(MasterSettings(), off(0, -20.0)).values()) == 0.0
    assert max(points(MasterSettings(), off(5, -20.0)).values()) == 1.0


def test_measured_faults_are_cut() -> None:
    """Mud and shimmer are cut where an index says so, with a sentence that tells it."""
    faulty = replace(ANALYSIS, mud_index=0.8, shimmer_index=0.5)
    curve = points(MasterSettings(), faulty)
    assert curve[320.0] == pytest.approx(-2.4)
    assert curve[9500.0] == pytest.approx(-1.5)
    assert curve[160.0] == curve[640.0] == 0.0
    notes = " ".join(plan(faulty, MasterSettings()).notes)
    assert "Mud" in notes
    assert "Shimmer" in notes


def test_only_lively_songs_are_compressed() -> None:
    """Compression needs a wide loudness range, a high crest factor and dynamics that are not spent."""
    lively = replace(ANALYSIS, loudness_range_lu=12.0, crest_factor_db=17.0)
    chain = plan(lively, MasterSettings()).chain
    assert isinstance(chain[1].kind, Compressor)
    assert 1.0 < chain[1].kind.ratio <= 1.5
    for spent in (
        replace(lively, flat_dynamics_index=0.6),
        replace(lively, crest_factor_db=9.0),
        replace(lively, loudness_range_lu=4.0),
    ):
        assert len(plan(spent, MasterSettings()).chain) == 1


def test_silence_has_no_target() -> None:
    """Without a loudness none is aimed at, and the plan says so."""
    silent = replace(
        ANALYSIS, integrated_lufs=None, band_levels=(), crest_factor_db=None, mud_index=None, shimmer_index=None
    )
    decided = plan(silent, MasterSettings())
    assert decided.target_lufs is None
    assert decided.drive_db == 0.0
    assert "no loudness" in decided.notes[0]


def test_presets_set_numbers_by_name() -> None:
    """A preset's numbers replace the defaults; those of other stages are ignored."""
    preset = {"master.tolerance_db": 10.0, "mix.width": 3.0}
    kind = plan(off(2, 6.0), MasterSettings(), preset).chain[0].kind
    assert isinstance(kind, LinearPhaseEqualizer)
    assert all(point.gain_db == 0.0 for point in kind.points if point.frequency_hertz >= 30.0)


def test_a_plan_is_pure() -> None:
    """The same analysis and settings give the same plan."""
    assert plan(ANALYSIS, MasterSettings(intent="loud")) == plan(ANALYSIS, MasterSettings(intent="loud"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (MasterSettings(intent="quiet"), "intent"),
        (MasterSettings(engine="magic"), "engine"),
        (MasterSettings(target_lufs=0.0), "target_lufs"),
        (MasterSettings(target_lufs=float("nan")), "target_lufs"),
        (MasterSettings(ceiling_dbtp=0.5), "ceiling_dbtp"),
        (MasterSettings(intensity=101.0), "intensity"),
        (MasterSettings(seed=-1), "seed"),
        (MasterSettings(deliverables=(DeliverableSpec(name="../x"),)), "deliverables[0].name"),
        (MasterSettings(deliverables=(DeliverableSpec(name=""),)), "deliverables[0].name"),
        (MasterSettings(deliverables=(DeliverableSpec(container="aac"),)), "deliverables[0].container"),
        (MasterSettings(deliverables=(DeliverableSpec(sample_rate_hertz=22050),)), "deliverables[0].sample_rate_hertz"),
        (
            MasterSettings(deliverables=(DeliverableSpec(container="flac", bit_depth="32f"),)),
            "deliverables[0].bit_depth",
        ),
        (
            MasterSettings(deliverables=(DeliverableSpec(container="mp3", bitrate_kbps=100),)),
            "deliverables[0].bitrate_kbps",
        ),
        (MasterSettings(deliverables=(DeliverableSpec(), DeliverableSpec())), "deliverables"),
    ],
)
def test_bad_settings_name_their_field(settings: MasterSettings, field: str) -> None:
    """Each setting out of range is refused with its path."""
    with pytest.raises(InvalidInput) as caught:
        plan(ANALYSIS, settings)
    assert caught.value.violations[0].field == field


def test_matchering_serves_references_only() -> None:
    """Options that contradict each other are an error with its own reason."""
    with pytest.raises(InvalidInput) as caught:
        plan(ANALYSIS, MasterSettings(intent="loud", engine="matchering"))
    assert caught.value.reason == "OPTIONS_CONFLICT"


def test_edited_plans_are_checked() -> None:
    """A plan from outside is held to the same limits: lifts within the guard-rail, rising points, safe names."""
    good = plan(ANALYSIS, MasterSettings())
    check_plan(good)
    lifted = LinearPhaseEqualizer((CurvePoint(100.0, 9.0),))
    falling = LinearPhaseEqualizer((CurvePoint(100.0), CurvePoint(50.0)))
    for wrong in (
        replace(good, chain=(Processor("tone", lifted),)),
        replace(good, chain=(Processor("tone", falling),)),
        replace(good, chain=(Processor("glue", Compressor(-20.0, 0.2)),)),
        replace(good, deliverables=(DeliverableSpec(name="a/b"),)),
        replace(good, deliverables=()),
        replace(good, drive_db=float("inf")),
        replace(good, engine=""),
        replace(good, limiter=replace(good.limiter, stereo_link=0.5)),
    ):
        with pytest.raises(InvalidInput):
            check_plan(wrong)
