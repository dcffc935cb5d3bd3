"""Jobs as a client sees them: created once per request id, found only by their tenant, cancelled, deleted."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import cast

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from outboard.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, Violation
from outboard.rpc import tracing
from outboard.v1 import job_service_pb2
from services.orchestrator.database import ArtifactRow, JobDatabase, JobRow
from services.orchestrator.preflight import Preflight
from services.orchestrator.presets import check_preset_is_read, resolve_platform, resolve_preset
from services.orchestrator.progress import ENDED, Endings, State, initial_progress
from services.orchestrator.removal import Remover
from services.orchestrator.specification import check_references, checked, upload_names
from services.orchestrator.threads import in_thread
from services.orchestrator.uploads import Uploads
from services.orchestrator.workflow import Pipeline

QUEUE = "jobs"
_NAME = re.compile(r"jobs/([A-Za-z0-9_-]{1,64})")
_ARTIFACT = re.compile(r"jobs/([A-Za-z0-9_-]{1,64})/artifacts/(.{1,300})", re.DOTALL)
_WATCH_POLL_SECONDS = 0.2
_WATCH_PERIOD_SECONDS = 0.5
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1000
_FIRST_PRIORITY = 101  # DBOS serves small numbers first, from 1


class Jobs:
    """Everything that JobService does with jobs."""

    def __init__(
        self,
        database: JobDatabase,
        endings: Endings,
        uploads: Uploads,
        preflight: Preflight,
        remover: Remover,
        pipeline: Pipeline,
    ) -> None:
        self._database = database
        self._endings = endings
        self._uploads = uploads
        self._preflight = preflight
        self._remover = remover
        self._pipeline = pipeline

    async def create(self, tenant: str, request: job_service_pb2.CreateJobRequest) -> job_service_pb2.Job:
        """Starts a job, or returns the one that the request id has started; only checks it where that is asked for.

        Raises:
            InvalidInput: the job cannot be done as it is asked for; a violation per field.
            AlreadyExists: REQUEST_ID_REUSED, the request id belongs to a different job.
            FailedPrecondition: an upload is not complete, or an engine is not available.
        """
        job = checked(request)
        if request.validate_only:
            await self._check(job)
            return job
        inputs = await self._inputs(tenant, job)
        check_references(job, inputs)
        fingerprint = _fingerprint(job, inputs)
        known = await in_thread(self._database.job_of_request, tenant, request.request_id)
        if known:
            return await self._known(known, fingerprint)
        await self._check(job)
        now = time.time()
        row = JobRow(
            id=secrets.token_hex(16),
            tenant=tenant,
            request_id=request.request_id or None,
            fingerprint=fingerprint,
            state=State.STATE_PENDING,
            specification=job.SerializeToString(deterministic=True),
            inputs=json.dumps(inputs),
            progress=initial_progress(job.stages),
            error=None,
            report=None,
            create_time=now,
            update_time=now,
            end_time=None,
            traceparent=tracing.traceparent(),
        )
        stored = await in_thread(self._database.insert_job, row)
        if stored.id != row.id:  # an equal request was faster
            return await self._known(stored, fingerprint)
        for key, _ in inputs:
            await in_thread(self._database.use, row.id, key)
        await self.enqueue(row)
        return await self._message(row)

    async def _check(self, job: job_service_pb2.Job) -> None:
        """Resolves what a job names, and asks its stages."""
        job.resolved_preset.CopyFrom(resolve_preset(job.preset, job.custom_preset))
        check_preset_is_read(job)
        resolve_platform(job.mastering)
        await self._preflight.check(job)

    async def enqueue(self, row: JobRow) -> None:
        """Queues a job's workflow; one that is queued already stays as it is."""
        priority = _FIRST_PRIORITY - job_service_pb2.Job.FromString(row.specification).priority
        with SetWorkflowID(row.id), SetEnqueueOptions(priority=priority):
            await DBOS.enqueue_workflow_async(QUEUE, self._pipeline.workflow, row.tenant, row.id, row.traceparent)

    async def resume(self) -> None:
        """Queues every unfinished job whose workflow is not there (a crash between its record and its workflow)."""
        for row in await in_thread(self._database.unfinished, ENDED):
            await self.enqueue(row)

    async def get(self, tenant: str, name: str) -> job_service_pb2.Job:
        """One job, with artifacts and report."""
        return await self._message(await self._row(tenant, name))

    async def page(self, tenant: str, request: job_service_pb2.ListJobsRequest) -> job_service_pb2.ListJobsResponse:
        """A page of jobs, the newest first, without reports."""
        if not 0 <= request.page_size <= _LARGEST_PAGE:
            raise InvalidInput(f"a page holds 1 to {_LARGEST_PAGE} jobs", field="page_size")
        size = request.page_size or _DEFAULT_PAGE
        after = _read_token(request.page_token)
        rows = await in_thread(self._database.page, tenant, set(request.states), size + 1, after)
        artifacts = await in_thread(self._database.artifacts, [row.id for row in rows[:size]])
        response = job_service_pb2.ListJobsResponse(
            jobs=[to_message(row, artifacts[row.id], report=False) for row in rows[:size]]
        )
        if len(rows) > size:
            response.next_page_token = f"{rows[size - 1].create_time!r}:{rows[size - 1].id}"
        return response

    async def cancel(self, tenant: str, name: str) -> job_service_pb2.Job:
        """Stops a job; one that has ended is returned as it is."""
        row = await self._row(tenant, name)
        now = time.time()
        stopped = await in_thread(
            lambda: self._database.advance(row.id, ENDED, state=State.STATE_CANCELLED, end_time=now)
        )
        if stopped:
            await DBOS.cancel_workflow_async(row.id)
            self._endings.tell(row.id)
        return await self.get(tenant, name)

    async def delete(self, tenant: str, name: str) -> None:
        """Removes a job that has ended and what no other job refers to.

        Raises:
            FailedPrecondition: JOB_STATE, the job has not ended.
        """
        row = await self._row(tenant, name)
        if row.state not in ENDED:
            raise FailedPrecondition("the job has not ended: cancel it first", reason="JOB_STATE")
        await in_thread(self._remover.remove, [row.id])

    async def watch(self, tenant: str, name: str) -> AsyncIterator[job_service_pb2.Job]:
        """The job at once, then after changes at most twice a second, and last when it has ended, with everything."""
        row = await self._row(tenant, name)
        shown, shown_at = -1.0, -_WATCH_PERIOD_SECONDS
        while row.state not in ENDED:
            moment = time.monotonic()
            if row.update_time != shown and moment - shown_at >= _WATCH_PERIOD_SECONDS:
                shown, shown_at = row.update_time, moment
                yield to_message(row, (), report=False)
            await self._endings.wait(row.id, _WATCH_POLL_SECONDS)
            row = await self._row(tenant, name)
        yield await self._message(row)

    async def artifact(self, tenant: str, name: str) -> ArtifactRow:
        """One artifact of a job of this tenant.

        Raises:
            InvalidInput: NAME_INVALID.
            NotFound: no such job or artifact.
        """
        match = _ARTIFACT.fullmatch(name)
        if not match or any(part in ("", ".", "..") for part in match.group(2).split("/")) or "\0" in name:
            raise InvalidInput(
                "an artifact's name is jobs/{job}/artifacts/{artifact}", reason="NAME_INVALID", field="name"
            )
        row = await self._row(tenant, f"jobs/{match.group(1)}")
        found = await in_thread(self._database.artifacts, [row.id])
        for artifact in found[row.id]:
            if artifact.name == match.group(2):
                return artifact
        raise NotFound("the job has no such artifact")

    async def _inputs(self, tenant: str, job: job_service_pb2.Job) -> list[tuple[str, str]]:
        """Object and digest of every upload that the job names."""
        inputs, violations = [], []
        for name, field in upload_names(job):
            try:
                row = await self._uploads.get(tenant, name)
            except InvalidInput as error:
                violations.append(Violation(field, error.message))
                continue
            except NotFound as error:
                raise NotFound(f"{field}: {error.message}", field=field) from error
            if row.key is None or row.sha256 is None:
                raise FailedPrecondition(f"{field}: the upload is not complete", reason="JOB_STATE", field=field)
            inputs.append((row.key, row.sha256))
        if violations:
            raise InvalidInput(violations[0].description, reason="NAME_INVALID", violations=violations)
        return inputs

    async def _known(self, row: JobRow, fingerprint: str) -> job_service_pb2.Job:
        """The job that a request id has started, if it is the one that is asked for."""
        if row.fingerprint != fingerprint:
            raise AlreadyExists("the request id belongs to another job", reason="REQUEST_ID_REUSED", field="request_id")
        return await self._message(row)

    async def _row(self, tenant: str, name: str) -> JobRow:
        match = _NAME.fullmatch(name)
        if not match:
            raise InvalidInput("a job's name is jobs/{job}", reason="NAME_INVALID", field="name")
        row = await in_thread(self._database.job, tenant, match.group(1))
        if row is None:
            raise NotFound("no such job")
        return row

    async def _message(self, row: JobRow) -> job_service_pb2.Job:
        artifacts = await in_thread(self._database.artifacts, [row.id])
        return to_message(row, artifacts[row.id], report=True)


def to_message(row: JobRow, artifacts: Sequence[ArtifactRow], *, report: bool) -> job_service_pb2.Job:
    """The wire's form of a job."""
    job = job_service_pb2.Job.FromString(row.specification)
    job.name = f"jobs/{row.id}"
    job.state = cast("job_service_pb2.Job.State.ValueType", row.state)
    job.progress.extend(job_service_pb2.Job.FromString(row.progress).progress)
    job.create_time.FromNanoseconds(round(row.create_time * 1e9))
    job.update_time.FromNanoseconds(round(row.update_time * 1e9))
    if row.end_time is not None:
        job.end_time.FromNanoseconds(round(row.end_time * 1e9))
    if row.error is not None:
        job.error.ParseFromString(row.error)
    if not report:  # a page of jobs with plans would be larger than a message may be
        job.ClearField("mix_plan")
        job.ClearField("master_plan")
    elif row.report is not None:
        job.report.ParseFromString(row.report)
    for artifact in artifacts:
        job.artifacts.add(
            name=f"{job.name}/artifacts/{artifact.name}",
            size_bytes=artifact.size,
            sha256=artifact.sha256,
            media_type=artifact.media_type,
            stage=artifact.stage,
        )
    return job


def _fingerprint(job: job_service_pb2.Job, inputs: Sequence[tuple[str, str]]) -> str:
    """Digest of what is asked for. Uploads count by their bytes: a caller that tries again may have sent them again."""
    asked = job_service_pb2.Job()
    asked.CopyFrom(job)
    asked.ClearField("references")
    if asked.WhichOneof("input") == "song":
        asked.song.ClearField("upload")
    for part in (*asked.stems.stems, *asked.album.songs):
        part.ClearField("upload")
    digests = json.dumps([digest for _, digest in inputs])
    return hashlib.sha256(asked.SerializeToString(deterministic=True) + digests.encode()).hexdigest()


def _read_token(token: str) -> tuple[float, str] | None:
    if not token:
        return None
    moment, _, job_id = token.partition(":")
    try:
        return float(moment), job_id
    except ValueError:
        raise InvalidInput("the page token is not one of this server", field="page_token") from None
