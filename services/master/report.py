"""Tells what a master did: measured figures, checks that pass or fail, a sentence for every decision, and why a target
was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from outboard.audio.analysis import Analysis
from outboard.audio.processors import ProcessorReport
from outboard.audio.reporting import EngineInfo, Warning
from services.master.chain_rules import Treatment
from services.master.checks import LOUDNESS_TOLERANCE_LU, quality_checks
from services.master.deliver import Delivered
from services.master.levelling import Levelled
from services.master.settings import (
    DeliverableReport,
    MasteringReport,
    MasterPlan,
)

ENGINE_VERSIONS = {"chain": 7, "match": 7, "matchering": 7, "passthrough": 1}
"""Raised whenever an engine's sound changes."""

_DESCRIPTIONS = {
    "chain": "Tone, dynamics and field where they were measured to be off, loudness under a true-peak limiter.",
    "match": "Spectrum, dynamics per band and width of one or more references, then the same limiter.",
    "matchering": "Spectrum and level of one reference by matchering, then the same limiter.",
    "passthrough": "Delivers the mix as it is.",
}

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
    treatment: Treatment,
) -> MasteringReport:
    """Puts the report together; `levelled`, `delivered` and `treatment` are what the steps of `master` returned."""
    stopped = _rail_reason(plan, levelled)
    reports = tuple(replace(file.report, target_missed_reason=_reason(plan, levelled, file)) for file in delivered)
    missed = next((report.target_missed_reason for report in reports if report.target_missed_reason), "")
    checks = quality_checks(plan, mix_frames, mix_rate_hertz, after, levelled, treatment, delivered)
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
        warnings=_warnings(plan, before, levelled, stopped, delivered),
        limiting_db=_over_time(levelled),
    )


def _over_time(levelled: Levelled) -> tuple[float, ...]:
    """The most reduction in each of up to `_LIMITING_PARTS` equal parts, in dB."""
    if levelled.drive is None:
        return ()
    curve = levelled.drive.reduction_db[0]
    edges = np.unique(np.linspace(0, curve.size, _LIMITING_PARTS, endpoint=False).astype(np.int64))
    return tuple(round(float(value), 2) for value in np.maximum.reduceat(curve, edges))


def _rail_reason(plan: MasterPlan, levelled: Levelled) -> str:
    """Why the master itself, before any file is made of it, is not at its target; empty where it is."""
    rails, drive, target, got = plan.guard_rails, levelled.drive, plan.target_lufs, levelled.lufs
    if target is None or drive is None or got is None or abs(got - target) <= LOUDNESS_TOLERANCE_LU:
        return ""
    came = f"under a ceiling of {plan.ceiling_dbtp:.1f} dBTP: stopped at {got:.1f} LUFS, {target - got:.1f} LU short."
    if drive.held_back_by == "crest_factor_db":
        return f"{target:.1f} LUFS would press the crest factor below {rails.crest_factor_db:.1f} dB {came}"
    if drive.held_back_by:
        return (
            f"{target:.1f} LUFS would need more than {rails.average_limiting_db:.1f} dB of limiting on average {came}"
        )
    return f"{levelled.renders} renders came to {got:.2f} LUFS instead of {target:.1f}."


def _cost(levelled: Levelled, file: Delivered) -> str:
    """What a file lost of the master's loudness, told where it can be measured by others."""
    if levelled.drive is None or levelled.lufs is None or file.report.integrated_lufs is None:
        return ""
    lost, spec = levelled.lufs - file.report.integrated_lufs, file.report.spec
    if abs(lost) <= LOUDNESS_TOLERANCE_LU:
        return ""
    made = f"coding at {spec.bitrate_kbps} kbit/s" if spec.is_lossy else f"conversion to {spec.sample_rate_hertz} Hz"
    return f"Keeping the ceiling of {file.report.name} after {made} cost {lost:.2f} LU."


def _reason(plan: MasterPlan, levelled: Levelled, file: Delivered) -> str:
    """Why a file is not at the target; empty where it is, or where there is none."""
    target, got = plan.target_lufs, file.report.integrated_lufs
    if target is None or levelled.drive is None or got is None or abs(got - target) <= LOUDNESS_TOLERANCE_LU:
        return ""
    reasons = [reason for reason in (_rail_reason(plan, levelled), _cost(levelled, file)) if reason]
    return " ".join(reasons) or f"{file.report.name} came to {got:.2f} LUFS instead of {target:.1f}."


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
    sentences += [
        f"{report.turned_down} granules (13 ms) of {report.name} still peaked over its ceiling: they were turned down."
        for report in reports
        if report.turned_down
    ]
    return tuple(sentences)


def _warnings(
    plan: MasterPlan, before: Analysis | None, levelled: Levelled, stopped: str, delivered: Sequence[Delivered]
) -> tuple[Warning, ...]:
    warnings = []
    if stopped:
        warnings.append(Warning("LOUDNESS_TARGET_MISSED", stopped))
    heard_lufs = before.integrated_lufs if before else levelled.lufs
    if heard_lufs is None and plan.target_lufs is None and plan.engine != "passthrough":
        warnings.append(Warning("NO_LOUDNESS_TARGET", "The mix has no measurable loudness: only its ceiling was kept."))
    for file in delivered:
        if cost := _cost(levelled, file):
            warnings.append(Warning("LOUDNESS_LOST_TO_CODING", cost))
        if not file.held:
            peak = file.report.true_peak_dbtp
            warnings.append(
                Warning(
                    "CEILING_MISSED", f"{file.report.name} reads {peak:.2f} dBTP after {file.report.encodes} encodes."
                )
            )
    return tuple(warnings)
