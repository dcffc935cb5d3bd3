"""The first and the last step of a job: from its specification to a route, from results to artifacts and a report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from outboard.errors import Internal, OutboardError
from outboard.report.assemble import StageReports, assemble, document
from outboard.report.comparison import Comparison
from outboard.report.page import PAGE_NAME, render, render_album, render_mix
from outboard.report.plan_file import PLAN_NAME, plan_text
from outboard.rpc.errors import to_status
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    job_service_pb2,
    master_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)
from services.orchestrator.albums import file_name
from services.orchestrator.audio_refs import AudioRef
from services.orchestrator.database import ArtifactRow
from services.orchestrator.extras import PREVIEW_NAME
from services.orchestrator.job_context import JobContext, Workshop
from services.orchestrator.preflight import Preflight
from services.orchestrator.progress import ENDED, Endings, Stage, State
from services.orchestrator.results import Result, find
from services.orchestrator.separation import used_settings
from services.orchestrator.specification import Route, route
from services.orchestrator.steps import Done
from services.orchestrator.threads import in_thread

_log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What the steps of a job left; None where a stage was not asked for."""

    song: Done | None = None
    separation: Done | None = None
    restorations: list[Done] = field(default_factory=list)
    stems: list[AudioRef] = field(default_factory=list)
    mix: Done | None = None
    mastering: Done | None = None
    measured: Done | None = None
    preview: Done | None = None
    album: list[Done] = field(default_factory=list)


class Finish:
    """Begins and ends jobs."""

    def __init__(self, workshop: Workshop, preflight: Preflight, endings: Endings) -> None:
        self._workshop = workshop
        self._preflight = preflight
        self._endings = endings
        self._store = workshop.store
        self._database = workshop.database

    async def begin(self, tenant: str, job_id: str) -> Route:
        """The job's route through the pipeline.

        Raises:
            OutboardError: a stage that was not there when the job was created refuses its settings.
        """
        job = await self._workshop.open(tenant, job_id)
        await self._preflight.check(job.specification)
        return route(job.specification, json.loads(job.inputs))

    async def succeed(self, tenant: str, job_id: str, outcome: Outcome) -> None:
        """Publishes artifacts and report."""
        job = await self._workshop.open(tenant, job_id)
        comparison = await self._comparison(outcome)
        reports = await self._reports(outcome, comparison)
        if reports.separation:
            used = tuple(used_settings(job.specification, reports.separation))
            reports = replace(reports, separation_settings=used)
        report = assemble(replace(reports, album=await self._album(job, outcome)))
        artifacts = [] if job.specification.plan_only else await self._artifacts(outcome)
        row = await in_thread(self._database.job, tenant, job_id)
        created = row.create_time if row else time.time()
        report.run.seconds = max(0.0, time.time() - created)
        report.run.start_time.FromNanoseconds(round(created * 1e9))
        if outcome.song and outcome.song.audio[0].seconds:
            report.run.real_time_factor = report.run.seconds / outcome.song.audio[0].seconds
        artifacts += await in_thread(self._store_reports, job, report, comparison)
        await job.progress.flush()
        await in_thread(
            lambda: self._database.succeed(
                job_id, ENDED, artifacts, state=State.STATE_SUCCEEDED, report=report.SerializeToString()
            )
        )

    async def fail(self, tenant: str, job_id: str, error: OutboardError) -> None:
        """Ends a job with the reason that a client sees."""
        _log.warning("a job failed", extra={"job": job_id, "reason": error.reason, "detail": error.message})
        error.metadata.pop("stage_call", None)
        status = to_status(error).SerializeToString()
        await in_thread(lambda: self._database.succeed(job_id, ENDED, [], state=State.STATE_FAILED, error=status))

    def forget(self, job_id: str) -> None:
        """Frees what is held in memory for a job that has ended, and wakes those who watch it."""
        self._workshop.close(job_id)
        self._endings.tell(job_id)

    async def _comparison(self, outcome: Outcome) -> Comparison | None:
        """Song and master over time, where the job made a master."""
        if outcome.preview is None:
            return None
        return Comparison.from_fields((await self._found(outcome.preview)).facts["comparison"])

    async def _album(self, job: JobContext, outcome: Outcome) -> tuple[job_service_pb2.AlbumSongReport, ...]:
        """The master's report on each song of an album."""
        songs = zip(job.specification.album.songs, outcome.album, strict=False)
        return tuple(
            [
                job_service_pb2.AlbumSongReport(
                    file_name=song.file_name,
                    title=done.audio[0].name,
                    mastering=await self._report(done, master_service_pb2.MasteringReport),
                )
                for song, done in songs
            ]
        )

    async def _reports(self, outcome: Outcome, comparison: Comparison | None) -> StageReports:
        before = after = None
        warnings: list[audio_pb2.Warning] = []
        if outcome.song:
            ingested = await self._found(outcome.song)
            before = ingested.message("analysis", analysis_pb2.Analysis)
            warnings += [audio_pb2.Warning(**entry) for entry in ingested.facts["warnings"]]
        separation = await self._report(outcome.separation, separator_service_pb2.SeparationReport)
        restorations = {}
        for done in (outcome.separation, *outcome.restorations):
            for code, text, stem in done.warnings if done else ():
                warnings.append(audio_pb2.Warning(code=code, message=text, stem=stem))
        for done in outcome.restorations:
            if done.prefix:
                found = await self._found(done)
                restorations[done.audio[0].name] = found.message("report", restorer_service_pb2.RestorationReport)
        mix = await self._report(outcome.mix, mixer_service_pb2.MixReport)
        mastering = await self._report(outcome.mastering, master_service_pb2.MasteringReport)
        if mastering and mastering.HasField("after"):
            after = mastering.after
        elif outcome.measured:
            after = (await self._found(outcome.measured)).message("analysis", analysis_pb2.Analysis)
        sections = comparison.sections if comparison else ()
        return StageReports(before, after, separation, restorations, mix, mastering, tuple(warnings), sections)

    async def _report(self, done: Done | None, kind: Any) -> Any:
        return (await self._found(done)).message("report", kind) if done else None

    async def _artifacts(self, outcome: Outcome) -> list[ArtifactRow]:
        stem_stage = Stage.STAGE_RESTORE if outcome.restorations else Stage.STAGE_SEPARATE
        rows = [
            await in_thread(self._audio_row, f"stems/{stem.name}.wav", stem, int(stem_stage)) for stem in outcome.stems
        ]
        if outcome.mix:
            rows.append(await in_thread(self._audio_row, "mix.wav", outcome.mix.audio[0], int(Stage.STAGE_MIX)))
        for done, stage in ((outcome.mastering, Stage.STAGE_MASTER), (outcome.preview, Stage.STAGE_UNSPECIFIED)):
            if done:
                rows += _file_rows(await self._found(done), int(stage))
        for done in outcome.album:
            rows += _file_rows(await self._found(done), int(Stage.STAGE_MASTER), done.audio[0].name)
        return rows

    def _audio_row(self, name: str, audio: AudioRef, stage: int) -> ArtifactRow:
        info = self._store.stat(audio.key, mark_used=True)
        if info is None:
            raise Internal("an artifact is gone before its job ended", reason="ARTIFACT_EXPIRED")
        return ArtifactRow(name, audio.key, info.size, audio.sha256, "audio/wav", stage)

    def _store_reports(
        self, job: JobContext, report: job_service_pb2.JobReport, comparison: Comparison | None
    ) -> list[ArtifactRow]:
        """The report for programs and the page for people; of a job that was to decide alone its plans instead."""
        name = job.specification.display_name
        fields = document(report, {"job": f"jobs/{job.id}", "display_name": name})
        text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False)
        rows = [self._store_text(job, "report.json", "application/json", text)]
        if job.specification.plan_only:
            rows.append(self._store_text(job, PLAN_NAME, "application/json", plan_text(report)))
        elif comparison:
            page = render(report, comparison, title=name, preview=PREVIEW_NAME)
            rows.append(self._store_text(job, PAGE_NAME, "text/html", page))
        elif report.mix.strips or report.restorations:
            rows.append(self._store_text(job, PAGE_NAME, "text/html", render_mix(report, title=name)))
        elif report.album:
            rows.append(self._store_text(job, PAGE_NAME, "text/html", render_album(report.album, title=name)))
        return rows

    def _store_text(self, job: JobContext, name: str, media_type: str, text: str) -> ArtifactRow:
        prefix = f"{job.tenant}/jobs/j{job.id}"
        key = f"{prefix}/{name}"
        self._database.use(job.id, prefix)
        self._store.delete(key)  # left by an interrupted attempt at this step
        content = text.encode()
        with self._store.writer(key) as writer:
            writer.write(content)
        return ArtifactRow(name, key, len(content), writer.sha256, media_type, 0)

    async def _found(self, done: Done) -> Result:
        result = await in_thread(find, self._store, done.prefix)
        if result is None:
            raise Internal("a result of an earlier step is gone", reason="ARTIFACT_EXPIRED")
        return result


def _file_rows(result: Result, stage: int, title: str = "") -> list[ArtifactRow]:
    """Artifacts of a result's files; those of an album's song under its title."""
    names: Mapping[str, Any] | list[str] = result.facts["files"]
    rows = []
    for name in names:
        stored = result.objects[name]
        shown = file_name(title, name) if title else PurePosixPath(name).name
        rows.append(ArtifactRow(shown, stored.key, stored.size, stored.sha256, stored.media_type, stage))
    return rows
