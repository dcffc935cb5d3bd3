"""Tells what a master did: measured figures, checks that pass or fail, a sentence for every decision, and why a target
was missed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outboard.audio.analysis import Analysis
from outboard.audio.processors import ProcessorReport
from outboard.audio.reporting import EngineInfo, Warning
from outboard.audio.resample import resampled_frames
from services.master.deliver import Delivered, tolerance_db
from services.master.levelling import Levelled
from services.master.settings import (
    DeliverableReport,
    MasteringReport,
    MasterPlan,
    QualityCheck,
)

ENGINE_VERSIONS = {"chain": 5, "match": 6, "matchering": 5, "passthrough": 1}
"""Raised whenever an engine's sound changes."""

_DESCRIPTIONS = {
    "chain": "Tone, dynamics and field where they were measured to be off, loudness under a true-peak limiter.",
    "match": "Spectrum, dynamics per band and width of one or more references, then the same limiter.",
    "matchering": "Spectrum and level of one reference by matchering, then the same limiter.",
    "passthrough": "Delivers the mix as it is.",
}

LOUDNESS_TOLERANCE_LU = 0.1
_LIMITING_PARTS = 400


def engine_info(name: str) -> EngineInfo:
    """One of the master's engines."""
    return EngineInfo(name, ENGINE_VERSIONS[name], description=_DESCRIPTIONS[name])


def list_engines() -> tuple[EngineInfo, ...]:
    """All of them, the preferred first."""
    return tuple(engine_info(name) for name in ENGINE_VERSIONS)


def build_report(
    plan: MasterPlan,
    mix_frames: int,
    mix_rate_hertz: int,
    before: Analysis | None,
    after: Analysis | None,
    levelled: Levelled,
    delivered: Sequence[Delivered],
    processors: tuple[ProcessorReport, ...],
) -> MasteringReport:
    """Puts the report together; `levelled` and `delivered` are what the steps of `master` returned."""
    reports = tuple(file.report for file in delivered)
    missed = _missed_reason(plan, levelled, reports)
    checks = _checks(plan, mix_frames, mix_rate_hertz, after, delivered)
    drive = levelled.drive
    return MasteringReport(
        engine=engine_info(plan.engine),
        plan=plan,
        before=before,
        after=after,
        deliverables=reports,
        processors=processors,
        average_limiting_db=drive.average_limiting_db if drive else None,
        maximum_limiting_db=float(drive.reduction_db.max()) if drive else None,
        renders=levelled.renders,
        drive_db=drive.gain_db if drive else 0.0,
        target_reached=plan.target_lufs is not None and not missed,
        target_missed_reason=missed,
        checks=checks,
        decisions=plan.notes + _decisions(levelled, reports),
        warnings=_warnings(plan, before, levelled, missed, delivered),
        limiting_db=_over_time(levelled),
    )


def _over_time(levelled: Levelled) -> tuple[float, ...]:
    """The most reduction in each of up to `_LIMITING_PARTS` equal parts, in dB."""
    if levelled.drive is None:
        return ()
    curve = levelled.drive.reduction_db[0]
    edges = np.unique(np.linspace(0, curve.size, _LIMITING_PARTS, endpoint=False).astype(np.int64))
    return tuple(round(float(value), 2) for value in np.maximum.reduceat(curve, edges))


def _missed_reason(plan: MasterPlan, levelled: Levelled, reports: Sequence[DeliverableReport]) -> str:
    target, drive = plan.target_lufs, levelled.drive
    got = reports[0].integrated_lufs
    if target is None or drive is None or got is None or abs(got - target) <= LOUDNESS_TOLERANCE_LU:
        return ""
    if drive.held_back_by:
        return _rail_reason(plan, levelled, target, got)
    spec = reports[0].spec
    if spec.container == "mp3":
        return (
            f"Coding at {spec.bitrate_kbps} kbit/s overshoots: keeping to {plan.ceiling_dbtp:.1f} dBTP cost "
            f"{target - got:.2f} LU of {reports[0].name}."
        )
    return f"{levelled.renders} renders came to {got:.2f} LUFS instead of {target:.1f}."


def _rail_reason(plan: MasterPlan, levelled: Levelled, target: float, got: float) -> str:
    rails, drive = plan.guard_rails, levelled.drive
    came = f"under a ceiling of {plan.ceiling_dbtp:.1f} dBTP: stopped at {got:.1f} LUFS, {target - got:.1f} LU short."
    if drive is not None and drive.held_back_by == "crest_factor_db":
        return f"{target:.1f} LUFS would press the crest factor below {rails.crest_factor_db:.1f} dB {came}"
    return f"{target:.1f} LUFS would need more than {rails.average_limiting_db:.1f} dB of limiting on average {came}"


def _checks(
    plan: MasterPlan, mix_frames: int, mix_rate_hertz: int, after: Analysis | None, delivered: Sequence[Delivered]
) -> tuple[QualityCheck, ...]:
    checks = []
    for file in delivered:
        report = file.report
        if plan.engine != "passthrough":
            limit = plan.ceiling_dbtp + tolerance_db(report.spec)
            checks.append(
                QualityCheck(
                    "TRUE_PEAK", file.held, report.true_peak_dbtp, limit, "dBTP", f"True peak of {report.name}."
                )
            )
        if plan.target_lufs is not None and report.integrated_lufs is not None:
            close = abs(report.integrated_lufs - plan.target_lufs) <= LOUDNESS_TOLERANCE_LU
            message = f"Loudness of {report.name} against its target, within {LOUDNESS_TOLERANCE_LU} LU."
            checks.append(QualityCheck("LOUDNESS", close, report.integrated_lufs, plan.target_lufs, "LUFS", message))
        frames = resampled_frames(mix_frames, mix_rate_hertz, report.spec.sample_rate_hertz)
        same = report.frames == frames
        checks.append(
            QualityCheck("DURATION", same, report.frames, frames, "frames", f"Length of {report.name} as the mix's.")
        )
    if after is not None:
        message = "Samples in flat runs at the top of the scale."
        checks.append(
            QualityCheck("CLIPPING", after.clipped_samples == 0, after.clipped_samples, 0.0, "samples", message)
        )
        lowest = plan.guard_rails.correlation
        if after.correlation is not None:
            message = "Correlation of left and right: below the limit the master thins out in mono."
            checks.append(
                QualityCheck("CORRELATION", after.correlation >= lowest, after.correlation, lowest, "", message)
            )
    return tuple(checks)


def _decisions(levelled: Levelled, reports: Sequence[DeliverableReport]) -> tuple[str, ...]:
    sentences = []
    if levelled.drive is not None:
        drive = levelled.drive
        sentences.append(
            f"{drive.gain_db:+.1f} dB go into the limiter, which takes back {drive.average_limiting_db:.2f} dB "
            f"on average and {float(drive.reduction_db.max()):.1f} dB at most."
        )
    sentences += [
        f"{report.name} was encoded {report.encodes} times to keep its ceiling after decoding."
        for report in reports
        if report.encodes > 1
    ]
    return tuple(sentences)


def _coding_cost_lu(levelled: Levelled, report: DeliverableReport) -> float:
    """What a lossy file is softer than the master; 0 for other files."""
    if report.spec.container != "mp3" or levelled.lufs is None or report.integrated_lufs is None:
        return 0.0
    return levelled.lufs - report.integrated_lufs


def _warnings(
    plan: MasterPlan, before: Analysis | None, levelled: Levelled, missed: str, delivered: Sequence[Delivered]
) -> tuple[Warning, ...]:
    warnings = []
    if missed:
        warnings.append(Warning("LOUDNESS_TARGET_MISSED", missed))
    heard_lufs = before.integrated_lufs if before else levelled.lufs
    if heard_lufs is None and plan.target_lufs is None and plan.engine != "passthrough":
        warnings.append(Warning("NO_LOUDNESS_TARGET", "The mix has no measurable loudness: only its ceiling was kept."))
    for file in delivered:
        cost = _coding_cost_lu(levelled, file.report)
        if cost > LOUDNESS_TOLERANCE_LU and file is not delivered[0]:  # of the first one the missed target tells
            message = f"Keeping the ceiling of {file.report.name} after coding cost {cost:.2f} LU."
            warnings.append(Warning("LOUDNESS_LOST_TO_CODING", message))
        if not file.held:
            peak = file.report.true_peak_dbtp
            warnings.append(
                Warning(
                    "CEILING_MISSED", f"{file.report.name} reads {peak:.2f} dBTP after {file.report.encodes} encodes."
                )
            )
    return tuple(warnings)
