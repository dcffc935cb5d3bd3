"""The report as one self-contained HTML page: nothing is loaded but the preview that lies beside it.

Every text that came from outside (file names, tags, messages) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from outboard.report import plots
from outboard.report.comparison import Comparison, Levels
from outboard.report.svg import clock
from outboard.v1 import analysis_pb2, job_service_pb2, master_service_pb2

PAGE_NAME = "report.html"

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#667;--paper:#fff;--rule:#e2e5e9;--before:#8d96a3;--after:#1f6feb;
--target:#c2410c;--good:#15803d;--bad:#b91c1c}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ad;--paper:#15181c;--rule:#2c3138;--before:#7b8591;
--after:#58a6ff;--target:#fb923c;--good:#4ade80;--bad:#f87171}}
body{margin:0 auto;max-width:900px;padding:24px 16px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}p.soft,.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 8px;border-bottom:1px solid var(--rule)}th{color:var(--soft);font-weight:500}
th:first-child,td:first-child{text-align:left}.scroll{overflow-x:auto}
.pass{color:var(--good)}.fail{color:var(--bad);font-weight:600}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule)}.mark{stroke:var(--soft);stroke-dasharray:2 3;opacity:.6}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}.area{stroke:none;opacity:.55}
.line.before{stroke:var(--before)}.line.after{stroke:var(--after)}
.line.target{stroke:var(--target);stroke-dasharray:5 4}
.area.before{fill:var(--before)}.area.after{fill:var(--after)}.area.limiting{fill:var(--target)}
.key{margin:0 0 4px;font-size:13px;color:var(--soft)}.key b{font-weight:600}.key .before{color:var(--before)}
.key .after{color:var(--after)}.key .target{color:var(--target)}audio{width:100%}ul{padding-left:20px}
"""

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
        _section("Decisions", _items(mastering.decisions)),
        _section("Checks", _checks(mastering.checks)),
        _section("Warnings", _items(warning.message for warning in report.warnings)) if report.warnings else "",
        _section("Spectrum", plots.spectrum(report.before, report.after, mastering)),
        _section("Loudness over time", plots.loudness(comparison, mastering)),
        _section("Limiting", plots.limiting(comparison, mastering)),
        _section("Waveform", plots.waveform(comparison)),
        _section("Stereo field", plots.stereo_field(report.before, report.after) + plots.correlation(comparison)),
        _section("Section by section", _sections(comparison)),
        _section("Files", _files(mastering.deliverables)),
    ]
    return _document(escape(title) or "Master", parts)


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
    parts = [f"<h1>{name}</h1>", _table(head, rows)]
    for song in songs:
        content = (
            _items(song.mastering.decisions) + _checks(song.mastering.checks) + _files(song.mastering.deliverables)
        )
        parts.append(_section(escape(song.title), content))
    return _document(name, parts)


def _delivered_lufs(mastering: master_service_pb2.MasteringReport) -> float | None:
    if not mastering.deliverables or not mastering.deliverables[0].HasField("integrated_lufs"):
        return None
    return mastering.deliverables[0].integrated_lufs


def _document(name: str, parts: Iterable[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{name}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _section(heading: str, content: str) -> str:
    return f"<h2>{heading}</h2>{content}" if content else ""


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
    return _table(("", "before", "after"), rows)


def _number(analysis: analysis_pb2.Analysis, field: str, decimals: int, unit: str) -> str:
    if not analysis.HasField(field):  # type: ignore[arg-type]
        return "–"
    return f"{getattr(analysis, field):.{decimals}f} {unit}".rstrip()


def _preview(name: str) -> str:
    if not name:
        return ""
    return _section(
        "Listen",
        f'<audio controls preload="none" src="{escape(name, quote=True)}"></audio>'
        '<p class="soft">Before and after at equal loudness, alternating every 5 seconds; it begins with before.</p>',
    )


def _items(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _checks(checks: Sequence[master_service_pb2.QualityCheck]) -> str:
    rows = []
    for check in checks:
        verdict = '<span class="pass">pass</span>' if check.passed else '<span class="fail">FAIL</span>'
        decimals = 0 if check.unit in _COUNTED else 2
        value = f"{check.value:.{decimals}f} {check.unit}" if check.HasField("value") else "–"
        limit = f"{check.limit:.{decimals}f} {check.unit}" if check.HasField("limit") else "–"
        rows.append((escape(f"{check.name}: {check.message}"), escape(value), escape(limit), verdict))
    return _table(("check", "measured", "limit", ""), rows, escaped=True) if rows else ""


def _sections(comparison: Comparison) -> str:
    if len(comparison.sections) < 2:
        return ""
    head = ("section", "loudness before", "after", "crest before", "after", "side/mid before", "after", "gain")
    rows = []
    for index, section in enumerate(comparison.sections, start=1):
        before, after = section.before, section.after
        name = f"{index}  {clock(section.start_seconds)}-{clock(section.end_seconds)}"
        gain = None if before.lufs is None or after.lufs is None else after.lufs - before.lufs
        rows.append((name, *_pairs(before, after), "–" if gain is None else f"{gain:+.1f} LU"))
    note = (
        '<p class="soft">Sections begin where the sound of the song changes. Gain that differs between them is what '
        "compression, limiting and equalisation did to its dynamics.</p>"
    )
    return _table(head, rows) + note


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
        rows.append((file.name, rate, lufs, peak, f"{file.size_bytes / 1e6:.1f} MB", str(file.encodes)))
    return _table(("file", "rate", "loudness", "true peak", "size", "encodes"), rows) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell if escaped else escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'
