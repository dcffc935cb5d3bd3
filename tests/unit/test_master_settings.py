"""What the master is asked for: what cannot be is refused by its field, and what is left unsaid is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboard.audio.processors import (
    Compressor,
    CurvePoint,
    LinearPhaseEqualizer,
    MultibandCompressor,
    Processor,
    StereoWidth,
)
from outboard.errors import InvalidInput
from services.master.plan import plan
from services.master.settings import DeliverableSpec, MasterSettings, check_plan
from tests.unit.test_master_plan import ANALYSIS


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (MasterSettings(intent="quiet"), "intent"),
        (MasterSettings(engine="magic"), "engine"),
        (MasterSettings(target_lufs=0.0), "target_lufs"),
        (MasterSettings(intent="custom"), "target_lufs"),
        (MasterSettings(target_lufs=float("nan")), "target_lufs"),
        (MasterSettings(ceiling_dbtp=0.5), "ceiling_dbtp"),
        (MasterSettings(intensity=101.0), "intensity"),
        (MasterSettings(seed=-1), "seed"),
        (MasterSettings(deliverables=(DeliverableSpec(name="../x"),)), "deliverables[0].name"),
        (MasterSettings(deliverables=(DeliverableSpec(name=""),)), "deliverables[0].name"),
        (MasterSettings(deliverables=(DeliverableSpec(container="aac"),)), "deliverables[0].container"),
        (MasterSettings(deliverables=(DeliverableSpec(sample_rate_hertz=22050),)), "deliverables[0].sample_rate_hertz"),
        (MasterSettings(deliverables=(DeliverableSpec(sample_rate_hertz=0),)), "deliverables[0].sample_rate_hertz"),
        (MasterSettings(deliverables=(DeliverableSpec(bit_depth="8"),)), "deliverables[0].bit_depth"),
        (
            MasterSettings(deliverables=(DeliverableSpec(container="flac", bit_depth="32f"),)),
            "deliverables[0].bit_depth",
        ),
        (
            MasterSettings(deliverables=(DeliverableSpec(container="mp3", bitrate_kbps=100),)),
            "deliverables[0].bitrate_kbps",
        ),
        (
            MasterSettings(deliverables=(DeliverableSpec(container="mp3", bitrate_kbps=0),)),
            "deliverables[0].bitrate_kbps",
        ),
    ],
)
def test_bad_settings_name_their_field(settings: MasterSettings, field: str) -> None:
    """Each setting out of range is refused with its path."""
    with pytest.raises(InvalidInput) as caught:
        plan(ANALYSIS, settings)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (MasterSettings(intent="loud", engine="matchering"), "engine"),
        (MasterSettings(intent="reference", engine="chain"), "engine"),
        (MasterSettings(intent="reference", engine="passthrough"), "engine"),
        (MasterSettings(intent="reference", engine="matchering", intensity=50.0), "intensity"),
        (MasterSettings(intent="reference", engine="matchering", nearest_reference=True), "nearest_reference"),
        (MasterSettings(deliverables=(DeliverableSpec(container="mp3", bit_depth="24"),)), "deliverables[0].bit_depth"),
        (MasterSettings(deliverables=(DeliverableSpec(container="mp3", dither="tpdf"),)), "deliverables[0].dither"),
        (MasterSettings(deliverables=(DeliverableSpec(bit_depth="32f", dither="tpdf"),)), "deliverables[0].dither"),
        (MasterSettings(deliverables=(DeliverableSpec(bitrate_kbps=320),)), "deliverables[0].bitrate_kbps"),
        (MasterSettings(deliverables=(DeliverableSpec(), DeliverableSpec(bit_depth="16"))), "deliverables"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: MasterSettings, field: str) -> None:
    """Options that contradict each other are an error with its own reason, and the field is named."""
    with pytest.raises(InvalidInput) as caught:
        plan(ANALYSIS, settings)
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert [violation.field for violation in caught.value.violations] == [field]


def test_what_a_file_leaves_unsaid_is_decided_in_the_plan() -> None:
    """24 bits and plain dither for wav and flac, 320 kbit/s for mp3; floats have no dither, mp3 no bit depth."""
    asked = (
        DeliverableSpec(),
        DeliverableSpec("b", bit_depth="32f"),
        DeliverableSpec("c", "flac", dither="noise_shaped"),
        DeliverableSpec("d", "mp3"),
    )
    decided = plan(ANALYSIS, MasterSettings(deliverables=asked)).deliverables
    assert [(spec.bit_depth, spec.dither, spec.bitrate_kbps) for spec in decided] == [
        ("24", "tpdf", None),
        ("32f", None, None),
        ("24", "noise_shaped", None),
        (None, None, 320),
    ]


def test_edited_plans_are_checked() -> None:
    """A plan from outside is held to the same limits: lifts within the guard-rail, rising points, safe names."""
    good = plan(ANALYSIS, MasterSettings())
    check_plan(good)
    lifted = LinearPhaseEqualizer((CurvePoint(100.0, 9.0),))
    falling = LinearPhaseEqualizer((CurvePoint(100.0), CurvePoint(50.0)))
    for wrong in (
        replace(good, chain=(Processor("tone", lifted),)),
        replace(good, chain=(Processor("tone", falling),)),
        replace(
            good, chain=(Processor("wide", StereoWidth(1.3)),), guard_rails=replace(good.guard_rails, side_gain=1.2)
        ),
        replace(good, chain=(Processor("ducked", Compressor(-20.0, 2.0, sidechain="kick")),)),
        replace(good, chain=(Processor("bands", MultibandCompressor(())),)),
        replace(good, deliverables=(DeliverableSpec(name="a/b"),)),
        replace(good, deliverables=()),
        replace(good, drive_db=float("inf")),
        replace(good, engine=""),
        replace(good, limiter=replace(good.limiter, stereo_link=0.5)),
    ):
        with pytest.raises(InvalidInput):
            check_plan(wrong)
