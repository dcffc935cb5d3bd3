"""What the command line shows: tables and progress for a person, JSON for a program, one exit code per kind of ending.

Exit codes: 0 done; 1 a job failed or a fault of ours; 2 wrong usage or input that cannot be used; 3 no such job, file,
artifact or preset; 4 a server or store cannot be reached, or is full; 5 cancelled; 6 not possible now; 130 interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from outboard import errors
from outboard.report.restorations import told
from outboard.report.separation_text import separation_sentences
from outboard.v1 import analysis_pb2, job_service_pb2, restorer_service_pb2

EXIT_CODES: tuple[tuple[type[errors.OutboardError], int], ...] = (
    (errors.InvalidInput, 2),
    (errors.PermissionDenied, 2),
    (errors.NotFound, 3),
    (errors.Unavailable, 4),
    (errors.DeadlineExceeded, 4),
    (errors.ResourceExhausted, 4),
    (errors.Cancelled, 5),
    (errors.FailedPrecondition, 6),
    (errors.AlreadyExists, 6),
    (errors.OutboardError, 1),
)

console = Console()
notices = Console(stderr=True)


def exit_code(error: errors.OutboardError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def print_json(value: Message | Mapping[str, Any]) -> None:
    """Writes one JSON document to standard output; messages keep the contract's field names."""
    plain = MessageToDict(value, preserving_proto_field_name=True) if isinstance(value, Message) else dict(value)
    print(json.dumps(plain, indent=2, sort_keys=True), flush=True)


def print_error(error: errors.OutboardError, *, as_json: bool) -> None:
    """Says what went wrong, with its reason and the fields that are to blame."""
    if as_json:
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        print_json({"error": {"reason": error.reason, "message": error.message, "violations": violations}})
        return
    notices.print(f"[bold red]{error.reason}[/] {escape(error.message)}", highlight=False, soft_wrap=True)
    for violation in error.violations:
        if violation.description not in error.message:
            text = f"  {violation.field}: {violation.description}"
            notices.print(text, highlight=False, markup=False, soft_wrap=True)


STAGE_NAMES = {
    job_service_pb2.STAGE_SEPARATE: "separate",
    job_service_pb2.STAGE_RESTORE: "restore",
    job_service_pb2.STAGE_MIX: "mix",
    job_service_pb2.STAGE_MASTER: "master",
}


class StageBars:
    """One progress bar per stage, moved by the job's messages."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[int, TaskID] = {}

    def update(self, job: job_service_pb2.Job) -> None:
        """Moves the bars to where the job is."""
        for stage in job.progress:
            if stage.stage not in self._bars:
                name = STAGE_NAMES.get(stage.stage, "stage")
                self._bars[stage.stage] = self._progress.add_task(name, total=1.0, activity="")
            activity = "already there" if stage.reused else stage.activity
            self._progress.update(self._bars[stage.stage], completed=stage.fraction, activity=activity)


@contextmanager
def stage_bars(*, enabled: bool) -> Iterator[StageBars | None]:
    """Live bars on standard error, or nothing where a program is listening or nobody looks."""
    if not (enabled and notices.is_terminal):
        yield None
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[activity]}"),
    )
    with Progress(*columns, console=notices) as progress:
        yield StageBars(progress)


def _number(message: Message, field: str, decimals: int, unit: str) -> str:
    if not message.HasField(field):
        return "–"
    return f"{getattr(message, field):.{decimals}f} {unit}".rstrip()


BEFORE_AFTER = (
    ("Loudness", "integrated_lufs", 1, "LUFS"),
    ("True peak", "true_peak_dbtp", 2, "dBTP"),
    ("Loudness range", "loudness_range_lu", 1, "LU"),
    ("Crest factor", "crest_factor_db", 1, "dB"),
    ("Width", "width", 2, ""),
    ("Correlation", "correlation", 2, ""),
    ("Shimmer", "shimmer_index", 2, ""),
    ("Mud", "mud_index", 2, ""),
)


def print_before_after(before: analysis_pb2.Analysis, after: analysis_pb2.Analysis) -> None:
    """The table at the end of a job."""
    table = Table("", "before", "after", title_justify="left")
    if not (before.ListFields() and after.ListFields()):
        return  # one measured side alone compares nothing
    for label, field, decimals, unit in BEFORE_AFTER:
        table.add_row(label, _number(before, field, decimals, unit), _number(after, field, decimals, unit))
    console.print(table)


def print_restorations(restorations: Mapping[str, restorer_service_pb2.RestorationReport]) -> None:
    """What was mended on each stem, and what was found and could not be, a line each; the report tells the rest."""
    lines, clean = [], []
    for name in sorted(restorations):
        everything = list(told(restorations[name]))
        done = [f"{one.what} {one.before} → {one.after}" for one in everything if one.is_done]
        unmet = [f"{name} keeps its {one.what}: {one.reason}" for one in everything if one.is_unmet]
        lines += [f"{name} mended: {', '.join(done)}"] * bool(done) + unmet
        clean += [name] * (not done and not unmet)
    if clean:
        lines.append(f"nothing to mend: {', '.join(clean)}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_album(songs: Iterable[job_service_pb2.AlbumSongReport]) -> None:
    """The table at the end of an album."""
    table = Table("", "before", "after", "true peak")
    for song in songs:
        before, after = song.mastering.before, song.mastering.after
        lufs = (_number(side, "integrated_lufs", 1, "LUFS") for side in (before, after))
        table.add_row(song.title, *lufs, _number(after, "true_peak_dbtp", 2, "dBTP"))
    if table.row_count:
        console.print(table)


def print_analysis(analysis: analysis_pb2.Analysis) -> None:
    """Every measurement, a row each; the thirds of an octave are for programs."""
    table = Table("measure", "value")
    for descriptor, value in analysis.ListFields():
        if descriptor.name == "third_octaves":
            continue
        if descriptor.name == "band_levels":
            for band in value:
                text = f"{band.level_db:.1f} dB ({band.deviation_db:+.1f} dB to the pink-like target)"
                table.add_row(f"level, {_edges(band)}", text)
        elif descriptor.name == "stereo_bands":
            for band in value:
                table.add_row(
                    f"stereo, {_edges(band)}", f"side/mid {band.mid_side_ratio_db:.1f} dB, lean {band.lean:+.2f}"
                )
        elif isinstance(value, (int, str)):
            table.add_row(descriptor.name, str(value))
        elif isinstance(value, float):
            table.add_row(descriptor.name, f"{value:.3f}")
        else:
            table.add_row(descriptor.name, ", ".join(f"{item:.6f}" for item in value))
    console.print(table)


def _edges(band: analysis_pb2.BandLevel | analysis_pb2.StereoBand) -> str:
    return f"{band.low_hertz:.0f}-{band.high_hertz:.0f} Hz"


def print_files(files: Iterable[str | Path]) -> None:
    """Where the files are."""
    for file in files:
        console.print(f"  {file}", highlight=False, markup=False, soft_wrap=True)


def print_separation(report: job_service_pb2.JobReport) -> None:
    """Which engine separated, who chose it, where and how long it ran."""
    run, sentences = report.separation.run, separation_sentences(report)
    if sentences and run.HasField("real_time_factor"):
        sentences.append(f"{run.seconds:.1f} s on {run.device}, {run.real_time_factor:.2f} of real time.")
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_warnings(report: job_service_pb2.JobReport) -> None:
    """What a person should know."""
    for warning in report.warnings:
        stem = f" ({warning.stem})" if warning.stem else ""
        notices.print(f"[yellow]{warning.code}[/]{escape(stem)} {escape(warning.message)}", highlight=False)
