"""The report of a job, from the reports of its stages.

Everything that differs from run to run (wall-clock times, names of jobs, devices) is gathered under one key, ``run``:
without it the documents of two runs on the same input are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from outboard.report.comparison import Section
from outboard.rpc.convert import to_message
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    job_service_pb2,
    master_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)

COMPARED = (
    ("shimmer_index", ""),
    ("mud_index", ""),
    ("spectral_hole_ratio", ""),
    ("hard_panning_index", ""),
    ("flat_dynamics_index", ""),
    ("correlation", ""),
    ("width", ""),
    ("crest_factor_db", "dB"),
    ("loudness_range_lu", "LU"),
)
"""Fields of Analysis that gain does not change, with their unit: compared as they are, they are compared at equal
loudness."""


@dataclass(frozen=True)
class StageReports:
    """What the stages of one job said; None where a stage was not asked for."""

    before: analysis_pb2.Analysis | None = None
    after: analysis_pb2.Analysis | None = None
    separation: separator_service_pb2.SeparationReport | None = None
    restorations: Mapping[str, restorer_service_pb2.RestorationReport] = field(default_factory=dict)
    mix: mixer_service_pb2.MixReport | None = None
    mastering: master_service_pb2.MasteringReport | None = None
    warnings: tuple[audio_pb2.Warning, ...] = ()
    sections: tuple[Section, ...] = ()
    album: tuple[job_service_pb2.AlbumSongReport, ...] = ()
    separation_settings: tuple[job_service_pb2.UsedSetting, ...] = ()


def assemble(stages: StageReports) -> job_service_pb2.JobReport:
    """Puts the stages' reports into one, with comparisons and all warnings; its `run` stays unset."""
    report = job_service_pb2.JobReport(
        before=stages.before,
        after=stages.after,
        separation=stages.separation,
        separation_settings=stages.separation_settings,
        mix=stages.mix,
        mastering=stages.mastering,
    )
    for name in sorted(stages.restorations):
        report.restorations[name].CopyFrom(stages.restorations[name])
    if stages.before and stages.after:
        report.comparisons.extend(compare(stages.before, stages.after))
    report.warnings.extend(_unique(_all_warnings(stages)))
    report.album.extend(stages.album)
    report.sections.extend(to_message(section, job_service_pb2.SectionComparison) for section in stages.sections)
    return report


def compare(before: analysis_pb2.Analysis, after: analysis_pb2.Analysis) -> list[job_service_pb2.Comparison]:
    """Each compared measure that at least one side has."""
    comparisons = []
    for metric, unit in COMPARED:
        comparison = job_service_pb2.Comparison(metric=metric, unit=unit)
        if _has(before, metric):
            comparison.before = getattr(before, metric)
        if _has(after, metric):
            comparison.after = getattr(after, metric)
        if comparison.HasField("before") or comparison.HasField("after"):
            comparisons.append(comparison)
    return comparisons


def document(report: job_service_pb2.JobReport, run: Mapping[str, Any]) -> dict[str, Any]:
    """The report as JSON-ready fields, with every stage's run block moved under ``run.stages`` beside the facts given.

    Args:
        report: from `assemble`.
        run: facts of this run: job name, times.
    """
    fields = _fields(report)
    if "mix" in fields:
        fields["mix"] = _with_zeros(report.mix) | {key: fields["mix"][key] for key in fields["mix"].keys() & {"run"}}
    stages: dict[str, Any] = {}
    for stage in ("separation", "mix", "mastering"):
        block = _taken_run(fields.get(stage))
        if block:
            stages[stage] = block
    restorations = {name: _taken_run(entry) for name, entry in fields.get("restorations", {}).items()}
    if any(restorations.values()):
        stages["restorations"] = {name: block for name, block in restorations.items() if block}
    album = [_taken_run(song.get("mastering")) for song in fields.get("album", [])]
    if any(album):
        stages["album"] = album
    own = fields.pop("run", {})
    return {**fields, "run": {**own, **run, "stages": stages}}


def _taken_run(entry: dict[str, Any] | None) -> dict[str, Any]:
    """Removes the run block of a stage, and the device that computed it, from the part that comparisons see."""
    if not entry:
        return {}
    block: dict[str, Any] = entry.pop("run", {})
    engines = [entry["engine"]] if "engine" in entry else entry.get("engines", [])
    for engine in engines:
        device = engine.pop("device", "")
        if device:
            block.setdefault("device", device)
    return block


def _has(message: Message, name: str) -> bool:
    return message.HasField(name)


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields


def _with_zeros(message: Message) -> dict[str, Any]:
    """The same with every number and switch: a fader at 0 dB is one, too. What is empty stays out."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    kept: dict[str, Any] = _without_empty(fields)
    return kept


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {key: _without_empty(entry) for key, entry in value.items()}
        return {key: entry for key, entry in inner.items() if entry not in ("", [], {})}
    return [_without_empty(entry) for entry in value] if isinstance(value, list) else value


def _all_warnings(stages: StageReports) -> Iterable[audio_pb2.Warning]:
    yield from stages.warnings
    if stages.separation:
        yield from stages.separation.warnings
    for name in sorted(stages.restorations):
        for warning in stages.restorations[name].warnings:
            yield audio_pb2.Warning(code=warning.code, message=warning.message, stem=warning.stem or name)
    if stages.mix:
        yield from stages.mix.warnings
    if stages.mastering:
        yield from stages.mastering.warnings
    for song in stages.album:
        for warning in song.mastering.warnings:
            yield audio_pb2.Warning(code=warning.code, message=warning.message, stem=song.title)


def _unique(warnings: Iterable[audio_pb2.Warning]) -> list[audio_pb2.Warning]:
    seen: dict[tuple[str, str, str], audio_pb2.Warning] = {}
    for warning in warnings:
        seen.setdefault((warning.code, warning.message, warning.stem), warning)
    return list(seen.values())
