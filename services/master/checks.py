"""The checks of a master: what was promised of its files, and whether the guard-rails were kept, each measured, with
its limit and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outboard.audio.analysis import Analysis
from outboard.audio.resample import resampled_frames
from services.master.chain_rules import Treatment
from services.master.deliver import Delivered, tolerance_db
from services.master.levelling import CREST_TOLERANCE_DB, Levelled
from services.master.settings import ENGINE_PASSTHROUGH, GuardRails, MasterPlan, QualityCheck

LOUDNESS_TOLERANCE_LU = 0.1
_LIMITING_TOLERANCE_DB = 0.01
_LIFT_TOLERANCE_DB = 0.1  # of what is measured in thirds of an octave
_SIDE_TOLERANCE = 0.02


def quality_checks(
    plan: MasterPlan,
    mix_frames: int,
    mix_rate_hertz: int,
    after: Analysis | None,
    levelled: Levelled,
    treatment: Treatment,
    delivered: Sequence[Delivered],
) -> tuple[QualityCheck, ...]:
    """All checks, those of files first.

    Args:
        plan: that was rendered.
        mix_frames: of the mix.
        mix_rate_hertz: of the mix.
        after: measured on the first file.
        levelled: what the loudness loop came to.
        treatment: what was done to tone and width.
        delivered: the files.
    """
    checks = [check for file in delivered for check in _file_checks(plan, mix_frames, mix_rate_hertz, file)]
    if after is not None:
        message = "Samples in flat runs at the top of the scale."
        clipped = after.clipped_samples
        checks.append(QualityCheck("CLIPPING", clipped == 0, clipped, 0.0, "samples", message))
        lowest = plan.guard_rails.correlation
        if after.correlation is not None:
            message = "Correlation of left and right: below the limit the master thins out in mono."
            held = after.correlation >= lowest
            checks.append(QualityCheck("CORRELATION", held, after.correlation, lowest, "", message))
    if plan.engine != ENGINE_PASSTHROUGH:
        checks += _rail_checks(plan.guard_rails, levelled, treatment)
    return tuple(checks)


def _file_checks(plan: MasterPlan, mix_frames: int, mix_rate_hertz: int, file: Delivered) -> Iterator[QualityCheck]:
    report = file.report
    if plan.engine != ENGINE_PASSTHROUGH:
        limit = plan.ceiling_dbtp + tolerance_db(report.spec)
        yield QualityCheck("TRUE_PEAK", file.held, report.true_peak_dbtp, limit, "dBTP", f"True peak of {report.name}.")
    if plan.target_lufs is not None and report.integrated_lufs is not None:
        close = abs(report.integrated_lufs - plan.target_lufs) <= LOUDNESS_TOLERANCE_LU
        message = f"Loudness of {report.name} against its target, within {LOUDNESS_TOLERANCE_LU} LU."
        yield QualityCheck("LOUDNESS", close, report.integrated_lufs, plan.target_lufs, "LUFS", message)
    frames = resampled_frames(mix_frames, mix_rate_hertz, report.spec.sample_rate_hertz)
    same = report.frames == frames
    yield QualityCheck("DURATION", same, report.frames, frames, "frames", f"Length of {report.name} as the mix's.")


def _rail_checks(rails: GuardRails, levelled: Levelled, treatment: Treatment) -> Iterator[QualityCheck]:
    if levelled.drive is not None:
        limiting, most = levelled.drive.average_limiting_db, rails.average_limiting_db
        message = "Mean gain reduction of the limiter: above the limit loudness is bought with squashing."
        yield QualityCheck("LIMITING", limiting <= most + _LIMITING_TOLERANCE_DB, limiting, most, "dB", message)
    crest, lowest = levelled.crest_factor_db, rails.crest_factor_db
    if crest is not None and lowest is not None:
        message = "Peak over RMS of the master: below the limit it is a wall."
        yield QualityCheck("CREST_FACTOR", crest >= lowest - CREST_TOLERANCE_DB, crest, lowest, "dB", message)
    if treatment.side_gain is not None:
        widest = rails.side_gain
        message = "Highest factor on the sides: above the limit the song is wider than it was made."
        held = treatment.side_gain <= widest + _SIDE_TOLERANCE
        yield QualityCheck("SIDE_GAIN", held, treatment.side_gain, widest, "", message)
    held = treatment.lift_db <= rails.equalizer_db + _LIFT_TOLERANCE_DB
    message = "Highest lift of the equaliser: above the limit it is another song, or noise."
    yield QualityCheck("EQUALIZER", held, treatment.lift_db, rails.equalizer_db, "dB", message)
