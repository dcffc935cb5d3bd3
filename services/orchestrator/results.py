"""Results of stages under content-addressed names, so that nothing is computed twice.

A result is a manifest at ``TENANT/results/DIGEST/manifest.json`` and the objects that it lists. The digest covers
everything that the result depends on. Each attempt writes its objects under a name of its own and then the manifest,
which is write-once: the first complete attempt wins as a whole, and stems of two attempts never mix.

Where an engine fails on the way and the stage goes on without it, the result gets another name before it is published
(`Draft.rename`): whoever asks for the engine again must not be served what it did not make.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from outboard import storage
from outboard.errors import NotFound, OutboardError
from outboard.storage import ObjectStore, ObjectWriter
from outboard.v1 import audio_pb2
from services.orchestrator.threads import in_thread, together

M = TypeVar("M", bound=Message)

_MANIFEST = "manifest.json"
_BATCH_BYTES = 1024 * 1024
_LAYOUT = 1  # raised when the manifest changes in a way that older results cannot be read


@dataclass(frozen=True)
class StoredObject:
    """One object of a result."""

    key: str
    size: int
    sha256: str
    media_type: str


@dataclass(frozen=True)
class Result:
    """A finished result: its objects by name, and the facts (reports, lengths) that came with them."""

    prefix: str
    objects: Mapping[str, StoredObject]
    facts: Mapping[str, Any]

    def message(self, name: str, kind: type[M]) -> M:
        """A protobuf message kept among the facts; an empty one where there is none."""
        return json_format.ParseDict(self.facts.get(name, {}), kind(), ignore_unknown_fields=True)


def result_prefix(
    tenant: str, stage: str, engines: Sequence[audio_pb2.EngineInfo], settings: Mapping[str, Any], inputs: Sequence[str]
) -> str:
    """Where a result lives: the digest of the stage, the engines that run with their versions, settings and inputs."""
    identity = {
        "layout": _LAYOUT,
        "stage": stage,
        "engines": [
            [engine.name, engine.version, engine.weights_digest, engine.precision, engine.backend] for engine in engines
        ],
        "settings": settings,
        "inputs": list(inputs),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{tenant}/results/{hashlib.sha256(text.encode()).hexdigest()}"


def prefix_of(key: str) -> str:
    """The result, or whatever else has a prefix of its own, to which an object belongs."""
    return "/".join(key.split("/")[:3])


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON-ready fields, the same for equal messages whatever order their maps were filled in."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


class ObjectDraft:
    """One object that is being written.

    What comes from the event loop is stored behind its back, a batch at a time: a visit to a worker thread per message
    would cost more than the writing. A batch waits for the one before it, so at most two are in memory.
    """

    def __init__(self, writer: ObjectWriter, key: str, media_type: str) -> None:
        self.key = key
        self.media_type = media_type
        self.size = 0
        self._writer = writer
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._storing: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Appends bytes. An error of the store may come out at a later call, or when the object is closed."""
        self.size += len(data)
        self._batch.append(data)
        self._batch_bytes += len(data)
        if self._batch_bytes >= _BATCH_BYTES:
            await self._stored()
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._storing = asyncio.create_task(in_thread(self._store, batch))

    def write_blocking(self, data: bytes | memoryview) -> None:
        """Appends bytes from a worker thread."""
        self.size += memoryview(data).nbytes
        self._writer.write(data)

    async def close(self) -> StoredObject:
        """Stores what was written as an object."""
        await self._stored()
        await in_thread(self._end)
        return StoredObject(self.key, self.size, self._writer.sha256, self.media_type)

    async def discard(self, error: BaseException) -> None:
        """Gives up what was written."""
        if self._storing:
            await asyncio.wait([self._storing])
            if not self._storing.cancelled():
                self._storing.exception()  # the first error is told, whatever came after it
        await in_thread(self._writer.__exit__, type(error), error, None)

    async def _stored(self) -> None:
        """Waits for the batch before."""
        storing, self._storing = self._storing, None
        if storing:
            await storing

    def _store(self, batch: list[bytes]) -> None:
        for data in batch:
            self._writer.write(data)

    def _end(self) -> None:
        self._store(self._batch)
        self._batch = []
        self._writer.__exit__(None, None, None)


@dataclass
class Draft:
    """An attempt at a result. Leaving the context without `finish` removes everything that it wrote."""

    store: ObjectStore
    prefix: str
    _attempt: str = field(default_factory=lambda: secrets.token_hex(8))
    _open: dict[str, ObjectDraft] = field(default_factory=dict)
    _moved: dict[str, StoredObject] = field(default_factory=dict)
    _finished: Result | None = None

    async def open(self, name: str, media_type: str) -> ObjectDraft:
        """Begins an object; `name` is what the manifest calls it, and may be anything."""
        leaf = hashlib.sha256(name.encode()).hexdigest()[:24]
        key = f"{self.prefix}/{self._attempt}/{leaf}"
        opened: list[ObjectWriter] = []
        try:
            await in_thread(lambda: opened.append(self.store.writer(key)))
        finally:
            # Also when cancelled here: the thread has opened it all the same, and somebody must close it.
            for writer in opened:
                self._open[name] = ObjectDraft(writer, key, media_type)
        return self._open[name]

    async def finish(self, facts: Mapping[str, Any]) -> Result:
        """Stores everything and publishes the result, unless another attempt was first: then that one is returned."""
        objects = self._moved or await self._closed()
        manifest = {"objects": {name: vars(stored) for name, stored in objects.items()}, "facts": facts}
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()
        first = await in_thread(storage.put, self.store, f"{self.prefix}/{_MANIFEST}", text)
        if first:
            self._finished = Result(self.prefix, objects, facts)
        else:
            found = await in_thread(find, self.store, self.prefix)
            if found is None:
                raise NotFound("the result was removed while it was written", reason="ARTIFACT_EXPIRED")
            self._finished = found
        await in_thread(self._remove_others)
        return self._finished

    async def rename(self, prefix: str) -> None:
        """Moves what was written below another name, under which it will be published; nothing is opened after it."""
        stored = await self._closed()
        old, self.prefix = self.prefix, prefix
        self._open.clear()  # all closed
        try:
            for name, item in stored.items():
                self._moved[name] = replace(item, key=f"{prefix}{item.key.removeprefix(old)}")
                await in_thread(self._copy, item.key, self._moved[name].key)
        finally:
            await in_thread(self._remove_attempt, old)

    async def _closed(self) -> dict[str, StoredObject]:
        """Every object, stored."""
        # Side by side: flushes to the disk that run together cost what one does.
        stored = await together(draft.close() for draft in self._open.values())
        return dict(zip(self._open, stored, strict=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished:
            return
        for draft in self._open.values():
            with suppress(OutboardError, asyncio.CancelledError):
                await draft.discard(error or asyncio.CancelledError())
        with suppress(OutboardError):
            await in_thread(self._remove_attempt, self.prefix)

    def _remove_others(self) -> None:
        """Removes what attempts that lost, or were killed, have left."""
        assert self._finished is not None
        wanted = {stored.key for stored in self._finished.objects.values()} | {f"{self.prefix}/{_MANIFEST}"}
        for info in list(self.store.list(self.prefix)):
            if info.key not in wanted:
                self.store.delete(info.key)

    def _copy(self, key: str, other_key: str) -> None:
        storage.put(self.store, other_key, self.store.read(key))

    def _remove_attempt(self, prefix: str) -> None:
        for info in list(self.store.list(f"{prefix}/{self._attempt}")):
            self.store.delete(info.key)


def find(store: ObjectStore, prefix: str) -> Result | None:
    """A finished result, if it and all of its objects are still there. One that lost objects to eviction is removed."""
    try:
        manifest = json.loads(storage.get(store, f"{prefix}/{_MANIFEST}"))
    except NotFound:
        return None
    objects = {name: StoredObject(**fields) for name, fields in manifest["objects"].items()}
    for stored in objects.values():
        info = store.stat(stored.key, mark_used=True)
        if info is None or info.size != stored.size:
            remove(store, prefix)
            return None
    return Result(prefix, objects, manifest["facts"])


def remove(store: ObjectStore, prefix: str) -> None:
    """Removes a result, the manifest first, so that no reader finds half of it."""
    store.delete(f"{prefix}/{_MANIFEST}")
    for info in list(store.list(prefix)):
        store.delete(info.key)
