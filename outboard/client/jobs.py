"""The typed client of JobService: songs in, jobs watched, artifacts out.

`AsyncClient` is for programs with an event loop, `Client` the same for all others. Both raise `outboard.errors`,
continue broken uploads, downloads and watches by themselves, and check every digest.

    with Client("127.0.0.1:50051") as client:
        upload = client.upload(Path("song.wav"))
        job = client.create_job(Job(song=SongInput(upload=upload.name)))
        for job in client.watch(job.name):
            print(job.progress)
        client.download_all(job, Path("out"))
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from outboard.errors import FailedPrecondition, Internal, OutboardError, Unavailable
from outboard.rpc.channel import aio_channel, outboard_errors
from outboard.rpc.errors import from_status
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import job_service_pb2_grpc

T = TypeVar("T")
Job = messages.Job
Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""

ENDED = frozenset({Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED})
_PIECE_BYTES = 256 * 1024
_RETRY_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


class AsyncClient:
    """Calls JobService from an event loop.

    Args:
        address: ``host:port`` or ``unix:PATH``.
        tenant: whose jobs these are; in a cluster the edge decides instead.
        credentials: for TLS; none: plain.
    """

    def __init__(
        self, address: str, *, tenant: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._channel = aio_channel(address, tenant=tenant, credentials=credentials)
        self._stub: job_service_pb2_grpc.JobServiceAsyncStub = job_service_pb2_grpc.JobServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def upload(self, source: Path | bytes, *, progress: Progress | None = None) -> messages.Upload:
        """Sends a file, or bytes. A connection that breaks is taken up where it ended."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        digest = await asyncio.to_thread(_sha256, source)
        upload = messages.Upload()
        for delay in (*_RETRY_DELAYS_SECONDS, None):
            try:
                return await self._send(source, size, digest, upload, progress)
            except Unavailable:
                if delay is None:
                    raise
                await asyncio.sleep(delay)
                if upload.name:
                    upload = await self.get_upload(upload.name)
        raise AssertionError("unreachable")

    async def _send(
        self, source: Path | bytes, size: int, digest: str, upload: messages.Upload, progress: Progress | None
    ) -> messages.Upload:
        if not upload.name:
            # Opened by a stream of its own, so that the name is known when the next one breaks.
            opening = messages.UploadStart(size_bytes=size, sha256=digest)
            upload.CopyFrom(await self._upload_stream(_once(messages.UploadAudioRequest(start=opening))))
            if upload.complete:
                return upload
        offset = upload.size_bytes
        start = messages.UploadStart(name=upload.name, offset=offset, size_bytes=size, sha256=digest)

        async def requests() -> AsyncIterator[messages.UploadAudioRequest]:
            yield messages.UploadAudioRequest(start=start)
            sent = offset
            for piece in _pieces(source, offset):
                yield messages.UploadAudioRequest(data=piece)
                sent += len(piece)
                if progress:
                    progress(sent, size)

        return await self._upload_stream(requests())

    async def _upload_stream(self, requests: AsyncIterator[messages.UploadAudioRequest]) -> messages.Upload:
        with outboard_errors():
            return await self._stub.UploadAudio(requests)

    async def get_upload(self, name: str) -> messages.Upload:
        """How much of an upload has arrived."""
        with outboard_errors():
            return await self._stub.GetUpload(messages.GetUploadRequest(name=name))

    async def create_job(self, job: Job, *, request_id: str | None = None) -> Job:
        """Starts a job. The same request id again returns the same job; unless given, each call has its own."""
        request = messages.CreateJobRequest(job=job, request_id=request_id or secrets.token_hex(16))
        with outboard_errors():
            return await self._stub.CreateJob(request)

    async def check_job(self, job: Job) -> Job:
        """What a job would be, without its uploads and without starting it; refused as `create_job` would refuse it."""
        with outboard_errors():
            return await self._stub.CreateJob(messages.CreateJobRequest(job=job, validate_only=True))

    async def get_job(self, name: str) -> Job:
        """One job, with artifacts and report."""
        with outboard_errors():
            return await self._stub.GetJob(messages.GetJobRequest(name=name))

    async def list_jobs(self, *, states: Sequence[Any] = (), page_size: int = 0) -> AsyncIterator[Job]:
        """All jobs, the newest first, page by page."""
        request = messages.ListJobsRequest(states=states, page_size=page_size)
        while True:
            with outboard_errors():
                response = await self._stub.ListJobs(request)
            for job in response.jobs:
                yield job
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def cancel_job(self, name: str) -> Job:
        """Stops a job; one that has ended is returned as it is."""
        with outboard_errors():
            return await self._stub.CancelJob(messages.CancelJobRequest(name=name))

    async def delete_job(self, name: str) -> None:
        """Removes a job that has ended."""
        with outboard_errors():
            await self._stub.DeleteJob(messages.DeleteJobRequest(name=name))

    async def watch(self, name: str) -> AsyncIterator[Job]:
        """The job whenever it changes; the last one has ended and carries artifacts and report."""
        failures = 0
        while True:
            try:
                with outboard_errors():
                    async for response in self._stub.WatchJob(messages.WatchJobRequest(name=name)):
                        failures = 0
                        yield response.job
                        if response.job.state in ENDED:
                            return
            except Unavailable:
                if failures == len(_RETRY_DELAYS_SECONDS):
                    raise
                await asyncio.sleep(_RETRY_DELAYS_SECONDS[failures])
                failures += 1

    async def wait(self, name: str) -> Job:
        """The job when it has ended."""
        last = None
        async for job in self.watch(name):
            last = job
        if last is None:
            raise Internal("the watch ended without the job")
        return last

    async def download(self, artifact: messages.Artifact, target: Path, *, progress: Progress | None = None) -> Path:
        """Fetches an artifact into a file, which appears whole or not at all; its digest is checked.

        Raises:
            FailedPrecondition: the bytes do not have the announced digest.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
        try:
            with partial.open("wb") as file:
                digest = await self._fetch(artifact, file.write, progress)
            if digest != artifact.sha256:
                raise FailedPrecondition(f"{target.name} arrived damaged: fetch it again", reason="ARTIFACT_EXPIRED")
            partial.replace(target)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
        return target

    async def read(self, artifact: messages.Artifact) -> bytes:
        """A (small) artifact in memory."""
        data = bytearray()
        await self._fetch(artifact, data.extend, None)
        return bytes(data)

    async def _fetch(
        self, artifact: messages.Artifact, write: Callable[[bytes], Any], progress: Progress | None
    ) -> str:
        digest, offset = hashlib.sha256(), 0
        for delay in (*_RETRY_DELAYS_SECONDS, None):
            try:
                request = messages.DownloadArtifactRequest(name=artifact.name, offset=offset)
                with outboard_errors():
                    async for response in self._stub.DownloadArtifact(request):
                        write(response.data)
                        digest.update(response.data)
                        offset += len(response.data)
                        if progress:
                            progress(offset, artifact.size_bytes)
                break
            except Unavailable:
                if delay is None:
                    raise
                await asyncio.sleep(delay)
        return digest.hexdigest()

    async def download_all(self, job: Job, folder: Path, *, progress: Progress | None = None) -> list[Path]:
        """Fetches every artifact of a job into a folder, under its own name (``stems/vocals.wav``)."""
        total, before, paths = sum(artifact.size_bytes for artifact in job.artifacts), 0, []
        for artifact in job.artifacts:
            done = before

            def step(count: int, _size: int, done: int = done) -> None:
                if progress:
                    progress(done + count, total)

            path = folder / artifact_path(artifact.name)
            paths.append(await self.download(artifact, path, progress=step))
            before += artifact.size_bytes
        return paths


class Client:
    """`AsyncClient` for programs without an event loop; the methods are the same, and block."""

    def __init__(
        self, address: str, *, tenant: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._loop = _background_loop()
        self._closed = False

        async def make() -> AsyncClient:
            return AsyncClient(address, tenant=tenant, credentials=credentials)

        self._client = self._run(make())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel."""
        if not self._closed:
            self._closed = True
            self._run(self._client.close())

    def upload(self, source: Path | bytes, *, progress: Progress | None = None) -> messages.Upload:
        """See `AsyncClient.upload`."""
        return self._run(self._client.upload(source, progress=progress))

    def get_upload(self, name: str) -> messages.Upload:
        """See `AsyncClient.get_upload`."""
        return self._run(self._client.get_upload(name))

    def create_job(self, job: Job, *, request_id: str | None = None) -> Job:
        """See `AsyncClient.create_job`."""
        return self._run(self._client.create_job(job, request_id=request_id))

    def check_job(self, job: Job) -> Job:
        """See `AsyncClient.check_job`."""
        return self._run(self._client.check_job(job))

    def get_job(self, name: str) -> Job:
        """See `AsyncClient.get_job`."""
        return self._run(self._client.get_job(name))

    def list_jobs(self, *, states: Sequence[Any] = (), page_size: int = 0) -> Iterator[Job]:
        """See `AsyncClient.list_jobs`."""
        return self._iterate(self._client.list_jobs(states=states, page_size=page_size))

    def cancel_job(self, name: str) -> Job:
        """See `AsyncClient.cancel_job`."""
        return self._run(self._client.cancel_job(name))

    def delete_job(self, name: str) -> None:
        """See `AsyncClient.delete_job`."""
        self._run(self._client.delete_job(name))

    def watch(self, name: str) -> Iterator[Job]:
        """See `AsyncClient.watch`."""
        return self._iterate(self._client.watch(name))

    def wait(self, name: str) -> Job:
        """See `AsyncClient.wait`."""
        return self._run(self._client.wait(name))

    def download(self, artifact: messages.Artifact, target: Path, *, progress: Progress | None = None) -> Path:
        """See `AsyncClient.download`."""
        return self._run(self._client.download(artifact, target, progress=progress))

    def read(self, artifact: messages.Artifact) -> bytes:
        """See `AsyncClient.read`."""
        return self._run(self._client.read(artifact))

    def download_all(self, job: Job, folder: Path, *, progress: Progress | None = None) -> list[Path]:
        """See `AsyncClient.download_all`."""
        return self._run(self._client.download_all(job, folder, progress=progress))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C here ends the call there
            raise

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def following() -> Any:
            return await anext(items, end)

        async def close() -> None:
            await items.aclose()  # type: ignore[attr-defined]

        try:
            while (item := self._run(following())) is not end:
                yield item
        finally:
            self._run(close())  # a listing may be left half-read


@functools.cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """The loop of every `Client` of this process. gRPC's poller serves all loops of a process and complains of one that
    was closed, so there is one, and it lasts.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="outboard-client", daemon=True).start()
    return loop


def artifact_path(name: str) -> PurePosixPath:
    """Where an artifact goes below a folder: the part of its name behind ``artifacts/``.

    Raises:
        Internal: the name leads out of the folder; no server of ours sends such.
    """
    path = PurePosixPath(name.partition("/artifacts/")[2])
    if not path.parts or path.is_absolute() or any(part in ("..", "") or os.sep in part for part in path.parts):
        raise Internal("the server sent an artifact name that is not one")
    return path


def failure(job: Job) -> OutboardError | None:
    """Why a job failed; None where it did not."""
    return from_status(job.error) if job.state == Job.STATE_FAILED else None


def _sha256(source: Path | bytes) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(source, 0):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(source: Path | bytes, offset: int) -> Iterable[bytes]:
    if isinstance(source, bytes):
        for start in range(offset, len(source), _PIECE_BYTES):
            yield source[start : start + _PIECE_BYTES]
        return
    with source.open("rb") as file:
        file.seek(offset)
        while piece := file.read(_PIECE_BYTES):
            yield piece


async def _once(request: messages.UploadAudioRequest) -> AsyncIterator[messages.UploadAudioRequest]:
    yield request
