"""JobService: protobuf to jobs, uploads and artifacts, and back; nothing else."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import empty_pb2

from outboard.errors import InvalidInput, NotFound
from outboard.rpc.tenant import current_tenant
from outboard.storage import ObjectStore
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import job_service_pb2_grpc
from services.orchestrator import uploads as uploads_module
from services.orchestrator.exchange import stored_pieces
from services.orchestrator.jobs import Jobs
from services.orchestrator.threads import in_thread
from services.orchestrator.uploads import Uploads

_URL_SECONDS = 3600.0
Context = grpc.aio.ServicerContext[Any, Any]


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """See job_service.proto. The tenant is the call's; the server's interceptor has checked it."""

    def __init__(self, jobs: Jobs, uploads: Uploads, store: ObjectStore) -> None:
        self._jobs = jobs
        self._uploads = uploads
        self._store = store

    async def CreateJob(self, request: messages.CreateJobRequest, context: Context) -> messages.Job:  # noqa: N802
        """Starts a job."""
        return await self._jobs.create(current_tenant(), request)

    async def GetJob(self, request: messages.GetJobRequest, context: Context) -> messages.Job:  # noqa: N802
        """One job."""
        return await self._jobs.get(current_tenant(), request.name)

    async def ListJobs(self, request: messages.ListJobsRequest, context: Context) -> messages.ListJobsResponse:  # noqa: N802
        """A page of jobs."""
        return await self._jobs.page(current_tenant(), request)

    async def CancelJob(self, request: messages.CancelJobRequest, context: Context) -> messages.Job:  # noqa: N802
        """Stops a job."""
        return await self._jobs.cancel(current_tenant(), request.name)

    async def DeleteJob(self, request: messages.DeleteJobRequest, context: Context) -> empty_pb2.Empty:  # noqa: N802
        """Removes a job that has ended."""
        await self._jobs.delete(current_tenant(), request.name)
        return empty_pb2.Empty()

    async def WatchJob(  # noqa: N802
        self, request: messages.WatchJobRequest, context: Context
    ) -> AsyncIterator[messages.WatchJobResponse]:
        """State and progress until the job ends."""
        async for job in self._jobs.watch(current_tenant(), request.name):
            yield messages.WatchJobResponse(job=job)

    async def UploadAudio(  # noqa: N802
        self, request_iterator: AsyncIterator[messages.UploadAudioRequest], context: Context
    ) -> messages.Upload:
        """Takes a file."""
        return await self._uploads.receive(current_tenant(), aiter(request_iterator))

    async def GetUpload(self, request: messages.GetUploadRequest, context: Context) -> messages.Upload:  # noqa: N802
        """How much of an upload has arrived."""
        return uploads_module.message(await self._uploads.get(current_tenant(), request.name))

    async def CreateUploadUrl(  # noqa: N802
        self, request: messages.CreateUploadUrlRequest, context: Context
    ) -> messages.CreateUploadUrlResponse:
        """A URL to send a file to."""
        key = f"{current_tenant()}/uploads/url"
        url = await in_thread(self._store.upload_url, key, _URL_SECONDS)
        response = messages.CreateUploadUrlResponse(url=url)
        response.expire_time.FromNanoseconds(round((time.time() + _URL_SECONDS) * 1e9))
        return response

    async def DownloadArtifact(  # noqa: N802
        self, request: messages.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[messages.DownloadArtifactResponse]:
        """The bytes of an artifact, from an offset."""
        artifact = await self._jobs.artifact(current_tenant(), request.name)
        if not 0 <= request.offset <= artifact.size:
            raise InvalidInput(f"an offset is 0 to {artifact.size}, not {request.offset}", field="offset")
        offset = request.offset
        async with aclosing(stored_pieces(self._store, artifact.key, offset)) as pieces:
            try:
                async for piece in pieces:
                    yield messages.DownloadArtifactResponse(offset=offset, data=piece, size_bytes=artifact.size)
                    offset += len(piece)
            except NotFound as error:
                raise NotFound("the artifact has expired: run the job again", reason="ARTIFACT_EXPIRED") from error
        if offset == request.offset:
            yield messages.DownloadArtifactResponse(offset=offset, size_bytes=artifact.size)

    async def CreateDownloadUrl(  # noqa: N802
        self, request: messages.CreateDownloadUrlRequest, context: Context
    ) -> messages.CreateDownloadUrlResponse:
        """A URL to fetch an artifact from."""
        artifact = await self._jobs.artifact(current_tenant(), request.name)
        url = await in_thread(self._store.download_url, artifact.key, _URL_SECONDS)
        response = messages.CreateDownloadUrlResponse(url=url)
        response.expire_time.FromNanoseconds(round((time.time() + _URL_SECONDS) * 1e9))
        return response
