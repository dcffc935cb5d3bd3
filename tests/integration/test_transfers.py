"""Uploads and downloads: resumed, checked, bounded; on toy stages, with the real orchestrator and store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from outboard.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutboardError,
)
from outboard.rpc.channel import outboard_errors
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import Bench, artifact_of, noise_file

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job


async def test_download_from_an_offset(mesh: Bench) -> None:
    """A download continues at any offset; one outside of the artifact is refused; an unknown artifact is NOT_FOUND."""
    job = await mesh.client.wait((await mesh.job(2)).name)
    artifact = artifact_of(job, "mix.wav")
    stub = mesh.client._stub
    request = messages.DownloadArtifactRequest(name=artifact.name, offset=100_000)
    data = b"".join([response.data async for response in stub.DownloadArtifact(request)])
    assert data == noise_file(2, 1.0)[100_000:]
    for offset in (-1, artifact.size_bytes + 1):
        request.offset = offset
        with pytest.raises(InvalidInput) as caught, outboard_errors():
            await anext(aiter(stub.DownloadArtifact(request)))
        assert caught.value.violations[0].field == "offset"
    request.offset = artifact.size_bytes
    assert [response.data async for response in stub.DownloadArtifact(request)] == [b""]
    with pytest.raises(NotFound):
        await mesh.client.read(messages.Artifact(name=f"{job.name}/artifacts/none.wav"))


async def _requests(start: messages.UploadStart, data: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
    yield messages.UploadAudioRequest(start=start)
    for begin in range(0, len(data), 65536):
        yield messages.UploadAudioRequest(data=data[begin : begin + 65536])


async def test_upload_resumes_where_it_broke(mesh: Bench) -> None:
    """An upload that ended early goes on at its size, at no other offset, and is complete with all its bytes only."""
    data = noise_file(40, 1.0)
    half = len(data) // 2
    digest = hashlib.sha256(data).hexdigest()
    start = messages.UploadStart(size_bytes=len(data), sha256=digest)

    async def sent(begin: messages.UploadStart, part: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=begin)
        yield messages.UploadAudioRequest(data=part)

    upload = await mesh.client._upload_stream(sent(start, data[:half]))
    assert (upload.size_bytes, upload.complete) == (half, False)
    start.name = upload.name
    with pytest.raises(InvalidInput) as caught:
        await mesh.client._upload_stream(sent(start, data))
    assert caught.value.reason == "UPLOAD_OFFSET"
    assert caught.value.metadata["offset"] == str(half)
    with pytest.raises(FailedPrecondition):
        await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    start.offset = half
    upload = await mesh.client._upload_stream(sent(start, data[half:]))
    assert upload.complete
    assert upload.sha256 == digest
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_small_upload_is_written_once(mesh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that fits into one part goes straight to its place; a larger one is joined from parts, and is the same."""
    written: list[str] = []
    real = FolderStore.writer

    def noted(store: FolderStore, key: str) -> object:
        written.append(key)
        return real(store, key)

    monkeypatch.setattr(FolderStore, "writer", noted)
    data = noise_file(41, 1.0)
    upload = await mesh.client.upload(data)
    assert written == [f"default/inputs/{upload.sha256}"]
    assert FolderStore(mesh.folder).stat(written[0]) is not None
    large = noise_file(42, 30.0)
    upload = await mesh.client.upload(large)
    assert upload.sha256 == hashlib.sha256(large).hexdigest()
    assert b"".join(FolderStore(mesh.folder).read(f"default/inputs/{upload.sha256}")) == large
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_upload_with_a_wrong_digest(mesh: Bench) -> None:
    """Bytes that do not have the announced digest are refused, and may be sent again from the beginning."""
    start = messages.UploadStart(size_bytes=3, sha256="0" * 64)

    async def sent(data: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=start)
        if data:
            yield messages.UploadAudioRequest(data=data)

    start.name = (await mesh.client._upload_stream(sent(b""))).name
    with pytest.raises(InvalidInput) as caught:
        await mesh.client._upload_stream(sent(b"abd"))
    assert caught.value.violations[0].field == "start.sha256"
    assert (await mesh.client.get_upload(start.name)).size_bytes == 0
    start.sha256 = hashlib.sha256(b"abc").hexdigest()
    upload = await mesh.client._upload_stream(sent(b"abc"))
    assert (upload.complete, upload.sha256) == (True, start.sha256)


async def test_upload_whose_connection_breaks(mesh: Bench) -> None:
    """A call that dies in the middle of the bytes leaves what had arrived; the upload goes on from there, whole."""
    data = noise_file(42, 2.0)
    half = len(data) // 2
    start = messages.UploadStart(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    opened = await mesh.client._upload_stream(_requests(start, b""))
    start.name = opened.name
    sent = asyncio.Event()

    async def half_of_it() -> AsyncIterator[messages.UploadAudioRequest]:
        async for request in _requests(start, data[:half]):
            yield request
        sent.set()
        await asyncio.Event().wait()

    call = mesh.client._stub.UploadAudio(half_of_it())
    await sent.wait()
    await asyncio.sleep(0.2)
    call.cancel()
    async with asyncio.timeout(10):
        while not (arrived := (await mesh.client.get_upload(start.name)).size_bytes):
            await asyncio.sleep(0.02)
    assert arrived == half
    start.offset = arrived
    upload = await mesh.client._upload_stream(_requests(start, data[half:]))
    assert upload.complete
    assert upload.sha256 == start.sha256


async def test_malformed_upload_streams(mesh: Bench) -> None:
    """No start, two starts, too many bytes: each its reason."""
    cases = {
        "STREAM_CONFIG_MISSING": [messages.UploadAudioRequest(data=b"x")],
        "STREAM_CONFIG_REPEATED": [messages.UploadAudioRequest(start=messages.UploadStart())] * 2,
        "STREAM_LENGTH_MISMATCH": [
            messages.UploadAudioRequest(start=messages.UploadStart(size_bytes=1)),
            messages.UploadAudioRequest(data=b"xy"),
        ],
    }
    for reason, requests in cases.items():

        async def sent(
            these: list[messages.UploadAudioRequest] = requests,
        ) -> AsyncIterator[messages.UploadAudioRequest]:
            for request in these:
                yield request

        with pytest.raises(OutboardError) as caught:
            await mesh.client._upload_stream(sent())
        assert caught.value.reason == reason


async def test_upload_over_the_limit(mesh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An announced size over the limit is refused before a byte is sent, an unannounced one where it passes the limit:
    INVALID_ARGUMENT with field and limit; nothing of it is kept."""
    monkeypatch.setattr("services.orchestrator.uploads.MAXIMUM_UPLOAD_BYTES", 1000)

    async def announced(size: int) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=messages.UploadStart(size_bytes=size))
        await asyncio.Event().wait()

    async def unannounced() -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=messages.UploadStart())
        for _ in range(2):
            yield messages.UploadAudioRequest(data=bytes(501))

    cases = {1001: announced(1001), -1: announced(-1), 1002: unannounced()}
    for size, requests in cases.items():
        with pytest.raises(InvalidInput) as caught:
            await mesh.client._upload_stream(requests)
        assert caught.value.violations[0].field == ("data" if size == 1002 else "start.size_bytes")
        assert caught.value.message == f"an upload has 0 to 1000 bytes, not {size}"
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_folder_store_has_no_urls(mesh: Bench) -> None:
    """Signed URLs are FAILED_PRECONDITION with STORAGE_UNSUPPORTED on a folder."""
    with pytest.raises(FailedPrecondition) as caught, outboard_errors():
        await mesh.client._stub.CreateUploadUrl(messages.CreateUploadUrlRequest(size_bytes=1))
    assert caught.value.reason == "STORAGE_UNSUPPORTED"
