"""The report as one self-contained HTML page: nothing is loaded but the preview that lies beside it.

Every text that came from outside (file names, tags, messages) is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from outboard.report import plots
from outboard.report.comparison import Comparison, Levels
from outboard.report.html import document, items, section, table
from outboard.report.mix_page import mix_sections
from outboard.report.restorations import restoration_sections
from outboard.report.separation_text import separation_sentences
from outboard.report.svg import clock
from outboard.v1 import analysis_pb2, job_service_pb2, master_service_pb2

PAGE_NAME = "report.html"

_MEASURES = (
    ("Loudness", "integrated_lufs", 1, "LUFS"),
    ("Loudest 3 s", "max_short_term_lufs", 1, "LUFS"),
    ("Loudness range", "loudness_range_lu", 1, "LU"),
    ("True peak", "true_peak_dbtp", 2, "dBTP"),
    ("Crest factor", "crest_factor_db", 1, "dB"),
    ("Side over mid", "mid_side_ratio_db", 1, "dB"),
    ("Correlation", "correlation", 2, ""),
    ("Correlation below 120 Hz", "low_correlation", 2, ""),
    ("Bandwidth", "bandwidth_hertz", 0, "Hz"),
    ("Shimmer", "shimmer_index", 2, ""),
    ("Mud", "mud_index", 2, ""),
    ("Flat dynamics", "flat_dynamics_index", 2, ""),
)
_COUNTED = frozenset({"frames", "samples"})


def render(report: job_service_pb2.JobReport, comparison: Comparison, *, title: str, preview: str = "") -> str:
    """The page.

    Args:
        report: of a job that was mastered.
        comparison: song and master over time.
        title: what a person calls the song.
        preview: file name of the level-matched comparison beside the page; empty: none.
    """
    mastering = report.mastering
    parts = [
        f"<h1>{escape(title) or 'Master'}</h1>",
        f'<p class="soft">{_summary(mastering)}</p>',
        _before_after(report.before, report.after),
        _preview(preview),
        section("Decisions", items(mastering.decisions)),
        section("Checks", _checks(mastering.checks)),
        section("Warnings", items(warning.message for warning in report.warnings)) if report.warnings else "",
        section("Spectrum", plots.spectrum(report.before, report.after, mastering)),
        section("Loudness over time", plots.loudness(comparison, mastering)),
        section("Limiting", plots.limiting(comparison, mastering)),
        section("Waveform", plots.waveform(comparison)),
        section("Stereo field", plots.stereo_field(report.before, report.after) + plots.correlation(comparison)),
        section("Section by section", _sections(comparison)),
        section("Files", _files(mastering.deliverables)),
        section("Separation", items(separation_sentences(report))),
        restoration_sections(report.restorations),
        mix_sections(report.mix),
    ]
    return document(escape(title) or "Master", parts)


def render_mix(report: job_service_pb2.JobReport, *, title: str) -> str:
    """The page of a job that ends with its mix, or with its restored stems."""
    name = escape(title) or ("Mix" if report.mix.strips else "Stems")
    sections = (
        section("Warnings", items(warning.message for warning in report.warnings)),
        section("Separation", items(separation_sentences(report))),
        restoration_sections(report.restorations),
        mix_sections(report.mix),
    )
    return document(name, [f"<h1>{name}</h1>", *sections])


def render_album(songs: Sequence[job_service_pb2.AlbumSongReport], *, title: str) -> str:
    """The page of an album: what came, what went out, and what lies between the songs on either side."""
    name = escape(title) or "Album"
    known = [song.mastering for song in songs if song.mastering.before.HasField("integrated_lufs")]
    loudest = max((mastering.before.integrated_lufs for mastering in known), default=0.0)
    final = max((_delivered_lufs(mastering) or -200.0 for mastering in known), default=0.0)
    rows = []
    for song in songs:
        before, after = song.mastering.before, _delivered_lufs(song.mastering)
        if not before.HasField("integrated_lufs") or after is None:
            rows.append((song.title, "–", "–", "–", "–", "–"))
            continue
        peak = _number(song.mastering.after, "true_peak_dbtp", 2, "dBTP")
        came, stays = before.integrated_lufs - loudest, after - final
        levels = (f"{before.integrated_lufs:.1f} LUFS", f"{after:.1f} LUFS", peak)
        rows.append((song.title, *levels, f"{came:+.1f} LU", f"{stays:+.1f} LU"))
    head = ("song", "before", "after", "true peak", "below the loudest: before", "after")
    parts = [f"<h1>{name}</h1>", table(head, rows)]
    for song in songs:
        content = items(song.mastering.decisions) + _checks(song.mastering.checks) + _files(song.mastering.deliverables)
        parts.append(section(escape(song.title), content))
    return document(name, parts)


def _delivered_lufs(mastering: master_service_pb2.MasteringReport) -> float | None:
    if not mastering.deliverables or not mastering.deliverables[0].HasField("integrated_lufs"):
        return None
    return mastering.deliverables[0].integrated_lufs


def _summary(mastering: master_service_pb2.MasteringReport) -> str:
    plan = mastering.plan
    intent = master_service_pb2.MasterIntent.Name(plan.intent).removeprefix("MASTER_INTENT_").lower()
    target = f"{plan.target_lufs:.1f} LUFS, " if plan.HasField("target_lufs") else ""
    engine = f"engine {escape(mastering.engine.name)} {mastering.engine.version}"
    missed = f" {escape(mastering.target_missed_reason)}" if mastering.target_missed_reason else ""
    return (
        f"Intent {escape(intent)}: {target}{plan.ceiling_dbtp:.1f} dBTP; {engine}, {mastering.renders} renders.{missed}"
    )


def _before_after(before: analysis_pb2.Analysis, after: analysis_pb2.Analysis) -> str:
    rows = [
        (label, _number(before, field, decimals, unit), _number(after, field, decimals, unit))
        for label, field, decimals, unit in _MEASURES
        if before.HasField(field) or after.HasField(field)  # type: ignore[arg-type]
    ]
    return table(("", "before", "after"), rows)


def _number(analysis: analysis_pb2.Analysis, field: str, decimals: int, unit: str) -> str:
    if not analysis.HasField(field):  # type: ignore[arg-type]
        return "–"
    return f"{getattr(analysis, field):.{decimals}f} {unit}".rstrip()


def _preview(name: str) -> str:
    if not name:
        return ""
    return section(
        "Listen",
        f'<audio controls preload="none" src="{escape(name, quote=True)}"></audio>'
        '<p class="soft">Before and after at equal loudness, alternating every 5 seconds; it begins with before.</p>',
    )


def _checks(checks: Sequence[master_service_pb2.QualityCheck]) -> str:
    rows = []
    for check in checks:
        verdict = '<span class="pass">pass</span>' if check.passed else '<span class="fail">FAIL</span>'
        decimals = 0 if check.unit in _COUNTED else 2
        value = f"{check.value:.{decimals}f} {check.unit}" if check.HasField("value") else "–"
        limit = f"{check.limit:.{decimals}f} {check.unit}" if check.HasField("limit") else "–"
        rows.append((escape(f"{check.name}: {check.message}"), escape(value), escape(limit), verdict))
    return table(("check", "measured", "limit", ""), rows, escaped=True) if rows else ""


def _sections(comparison: Comparison) -> str:
    if len(comparison.sections) < 2:
        return ""
    head = ("section", "loudness before", "after", "crest before", "after", "side/mid before", "after", "gain")
    rows = []
    for index, one in enumerate(comparison.sections, start=1):
        before, after = one.before, one.after
        name = f"{index}  {clock(one.start_seconds)}-{clock(one.end_seconds)}"
        gain = None if before.lufs is None or after.lufs is None else after.lufs - before.lufs
        rows.append((name, *_pairs(before, after), "–" if gain is None else f"{gain:+.1f} LU"))
    note = (
        '<p class="soft">Sections begin where the sound of the song changes. Gain that differs between them is what '
        "compression, limiting and equalisation did to its dynamics.</p>"
    )
    return table(head, rows) + note


def _pairs(before: Levels, after: Levels) -> tuple[str, ...]:
    cells: list[str] = []
    for field in ("lufs", "crest_db", "side_over_mid_db"):
        for side in (before, after):
            value = getattr(side, field)
            cells.append("–" if value is None else f"{value:.1f}")
    return tuple(cells)


def _files(deliverables: Sequence[master_service_pb2.DeliverableReport]) -> str:
    rows: list[tuple[Any, ...]] = []
    for file in deliverables:
        lufs = f"{file.integrated_lufs:.2f} LUFS" if file.HasField("integrated_lufs") else "–"
        peak = f"{file.true_peak_dbtp:.2f} dBTP" if file.HasField("true_peak_dbtp") else "–"
        rate = f"{file.spec.sample_rate_hertz / 1000:g} kHz"
        size = f"{file.size_bytes / 1e6:.1f} MB"
        rows.append((file.name, rate, lufs, peak, size, str(file.encodes), file.target_missed_reason))
    return table(("file", "rate", "loudness", "true peak", "size", "encodes", "why not louder"), rows) if rows else ""
