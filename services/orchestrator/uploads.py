"""Files on their way in: resumable, in parts of bounded size, joined and digested when they are complete.

A part is an object named by its offset. What a broken connection delivered stays, so an upload goes on from where it
ended, on any replica. A complete upload becomes one object named by its digest, and the same bytes are stored once.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from outboard import storage
from outboard.errors import FailedPrecondition, InvalidInput, NotFound, OutboardError, ResourceExhausted
from outboard.storage import ObjectStore
from outboard.v1 import job_service_pb2
from services.orchestrator.database import JobDatabase, UploadRow
from services.orchestrator.threads import in_thread

MAXIMUM_UPLOAD_BYTES = 4 * 1024**3
"""Largest upload. The longest audio that is read, two hours, takes 2.6 GiB as 48 kHz stereo of 32-bit floats."""
_PART_BYTES = 8 * 1024 * 1024
_MAXIMUM_MESSAGE_BYTES = 1024 * 1024
_NAME = re.compile(r"uploads/([A-Za-z0-9_-]{1,64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class _Arrival:
    """An upload on one stream: its record, what is in memory behind that, and the digest of what the record counts.

    The digest is None where an earlier stream has brought a part.
    """

    row: UploadRow
    pending: bytearray = field(default_factory=bytearray)
    digest: Any = None

    def __post_init__(self) -> None:
        if self.row.size == 0:
            self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.row.size + len(self.pending)


class Uploads:
    """Receives and finds uploads."""

    def __init__(self, store: ObjectStore, database: JobDatabase) -> None:
        self._store = store
        self._database = database
        self._busy: set[str] = set()

    async def receive(
        self, tenant: str, requests: AsyncIterator[job_service_pb2.UploadAudioRequest]
    ) -> job_service_pb2.Upload:
        """Takes one upload stream.

        Raises:
            InvalidInput: no start, a second one, UPLOAD_OFFSET, a wrong size or digest, larger than the limit.
            NotFound: no such upload of this tenant.
            ResourceExhausted: STORAGE_FULL.
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "start":
            raise InvalidInput("the first message must be the start", reason="STREAM_CONFIG_MISSING", field="start")
        start = first.start
        _check_start(start)
        row = await self._opened(tenant, start)
        if row.key is not None:
            return message(row)
        if row.id in self._busy:
            raise FailedPrecondition("the upload is being received on another stream", reason="UPLOAD_OFFSET")
        self._busy.add(row.id)
        try:
            return await self._take(_Arrival(row), start, requests)
        finally:
            self._busy.discard(row.id)

    async def get(self, tenant: str, name: str) -> UploadRow:
        """One upload of this tenant, with what has arrived.

        Raises:
            InvalidInput: NAME_INVALID.
            NotFound: there is none.
        """
        match = _NAME.fullmatch(name)
        if not match:
            raise InvalidInput("an upload's name is uploads/{upload}", reason="NAME_INVALID", field="name")
        row = await in_thread(self._database.upload, tenant, match.group(1))
        if row is None:
            raise NotFound("no such upload")
        return row

    def forget(self, older_than: float) -> None:
        """Removes unfinished uploads that nobody continued, and the records of finished ones. Blocks."""
        for row in self._database.drop_uploads(older_than):
            for info in list(self._store.list(_parts_prefix(row))):
                self._store.delete(info.key)

    async def _opened(self, tenant: str, start: job_service_pb2.UploadStart) -> UploadRow:
        if start.name:
            row = await self.get(tenant, start.name)
        else:
            row = UploadRow(secrets.token_urlsafe(24), tenant, None, 0, None, time.time())
            await in_thread(self._database.put_upload, row)
        if row.key is None and start.offset != row.size:
            raise InvalidInput(
                f"the upload goes on at byte {row.size}, not {start.offset}",
                reason="UPLOAD_OFFSET",
                field="start.offset",
                metadata={"offset": str(row.size), "upload": f"uploads/{row.id}"},
            )
        return row

    async def _take(
        self,
        arrival: _Arrival,
        start: job_service_pb2.UploadStart,
        requests: AsyncIterator[job_service_pb2.UploadAudioRequest],
    ) -> job_service_pb2.Upload:
        """Stores parts until the stream ends, and joins them when all is there; what came before a break is kept."""
        expected = start.size_bytes if start.HasField("size_bytes") else None
        try:
            async for request in requests:
                _check_data(request, arrival.size, expected)
                arrived = arrival.size + len(request.data)
                if arrived > MAXIMUM_UPLOAD_BYTES:
                    arrival.pending.clear()
                    await in_thread(self._begin_again, arrival.row)
                    raise _too_large("data", arrived)
                arrival.pending += request.data
                if len(arrival.pending) >= _PART_BYTES:
                    await in_thread(self._store_part, arrival)
        except (asyncio.CancelledError, OutboardError) as error:
            if not isinstance(error, ResourceExhausted):
                with suppress(OutboardError):
                    await in_thread(self._store_part, arrival)
            raise
        if expected is not None and arrival.size < expected:
            # The sender ended early on purpose: what came is kept and may be continued.
            await in_thread(self._store_part, arrival)
            return message(arrival.row)
        return message(await in_thread(self._join, arrival, start.sha256))

    def _store_part(self, arrival: _Arrival) -> None:
        if not arrival.pending:
            return
        row, data = arrival.row, bytes(arrival.pending)
        key = f"{_parts_prefix(row)}/{row.size:015d}"
        self._store.delete(key)  # left by a crash, without its record
        storage.put(self._store, key, data)
        arrival.row = UploadRow(row.id, row.tenant, None, row.size + len(data), None, time.time())
        self._database.put_upload(arrival.row)
        arrival.pending.clear()
        if arrival.digest:
            arrival.digest.update(data)

    def _join(self, arrival: _Arrival, wanted_sha256: str) -> UploadRow:
        """Makes one object of the stored parts and of what is still in memory (a small file is written just once)."""
        row, size, digest = arrival.row, arrival.size, arrival.digest
        if digest is None:  # a continued upload: the beginning is known to the store only
            digest = hashlib.sha256()
            for piece in self._pieces(row, row.size):
                digest.update(piece)
        digest.update(arrival.pending)
        sha256 = digest.hexdigest()
        if wanted_sha256 and wanted_sha256 != sha256:
            self._begin_again(row)
            raise InvalidInput(
                f"the bytes that arrived have the digest {sha256}: send them again from byte 0", field="start.sha256"
            )
        key = f"{row.tenant}/inputs/{sha256}"
        if self._store.stat(key, mark_used=True) is None:
            storage.put(self._store, key, itertools.chain(self._pieces(row, row.size), [bytes(arrival.pending)]))
        done = UploadRow(row.id, row.tenant, key, size, sha256, time.time())
        self._database.put_upload(done)
        self._drop_parts(row)
        return done

    def _pieces(self, row: UploadRow, size: int) -> Iterator[bytes]:
        position = 0
        while position < size:
            for piece in self._store.read(f"{_parts_prefix(row)}/{position:015d}"):
                position += len(piece)
                yield piece

    def _begin_again(self, row: UploadRow) -> None:
        """Forgets what has arrived."""
        self._drop_parts(row)
        self._database.put_upload(UploadRow(row.id, row.tenant, None, 0, None, time.time()))

    def _drop_parts(self, row: UploadRow) -> None:
        for info in list(self._store.list(_parts_prefix(row))):
            self._store.delete(info.key)


def message(row: UploadRow) -> job_service_pb2.Upload:
    """The wire's form of an upload."""
    return job_service_pb2.Upload(
        name=f"uploads/{row.id}", size_bytes=row.size, complete=row.key is not None, sha256=row.sha256 or ""
    )


def _check_start(start: job_service_pb2.UploadStart) -> None:
    if start.sha256 and not _SHA256.fullmatch(start.sha256):
        raise InvalidInput("sha256 is 64 lower-case hexadecimal digits", field="start.sha256")
    if not 0 <= start.size_bytes <= MAXIMUM_UPLOAD_BYTES:
        raise _too_large("start.size_bytes", start.size_bytes)


def _too_large(field: str, size: int) -> InvalidInput:
    return InvalidInput(f"an upload has 0 to {MAXIMUM_UPLOAD_BYTES} bytes, not {size}", field=field)


def _check_data(request: job_service_pb2.UploadAudioRequest, arrived: int, expected: int | None) -> None:
    kind = request.WhichOneof("request")
    if kind == "start":
        raise InvalidInput("a second start", reason="STREAM_CONFIG_REPEATED", field="start")
    if len(request.data) > _MAXIMUM_MESSAGE_BYTES:
        raise InvalidInput("a message holds at most 1 MiB", reason="STREAM_CHUNK_SIZE", field="data")
    total = arrived + len(request.data)
    if expected is not None and total > expected:
        raise InvalidInput(
            f"more bytes than the announced {expected}", reason="STREAM_LENGTH_MISMATCH", field="start.size_bytes"
        )


def _parts_prefix(row: UploadRow) -> str:
    # The id may begin with a character that no key part begins with.
    return f"{row.tenant}/uploads/u{row.id}"
