"""What a store is to its users: the protocol, well-formed keys, and small helpers on any store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from outboard.errors import InvalidInput

CHUNK_BYTES = 256 * 1024
"""Bytes per piece when objects are streamed."""

_MAX_KEY_CHARACTERS = 900
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object: key, size in bytes, and when it was stored and last used (seconds since the epoch)."""

    key: str
    size: int
    create_time: float
    use_time: float


class ObjectWriter(Protocol):
    """A growing object. Leaving the context without an exception stores it, with one discards it, once."""

    def write(self, data: bytes | memoryview) -> None: ...

    @property
    def stored(self) -> bool:
        """After the context: whether this content was stored (False: another writer was first)."""

    @property
    def sha256(self) -> str:
        """Digest in hexadecimal of what was written so far."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ObjectStore(Protocol):
    """What the orchestrator needs of a store. All calls block: use a worker thread from an event loop."""

    def writer(self, key: str) -> ObjectWriter:
        """Begins an object of any size, in bounded memory."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Pieces of CHUNK_BYTES (the last one shorter) from a byte offset; NOT_FOUND is raised by the call itself."""

    def stat(self, key: str, *, mark_used: bool = False) -> ObjectInfo | None:
        """Facts of an object, or None. With `mark_used` it counts as used now, as reading does."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a whole-part prefix such as ``TENANT`` or ``TENANT/uploads``; the empty one lists all."""

    def delete(self, key: str) -> bool:
        """Removes an object; False where there was none."""

    def local_file(self, key: str) -> AbstractContextManager[Path]:
        """The object as a readable file for libraries that want a path; never write to it."""

    def pinned(self, keys: Iterable[str]) -> AbstractContextManager[None]:
        """Keeps objects, or everything below a prefix, from eviction while the context lasts."""

    def download_url(self, key: str, lifetime_seconds: float) -> str:
        """A signed URL, where the store has such; else FailedPrecondition STORAGE_UNSUPPORTED."""

    def upload_url(self, key: str, lifetime_seconds: float) -> str:
        """A signed URL, where the store has such; else FailedPrecondition STORAGE_UNSUPPORTED."""


def check_key(key: str) -> str:
    """Returns the key if it is well-formed: two or more parts of letters, digits, ``._-``, none beginning with a dot.

    Raises:
        InvalidInput: NAME_INVALID; this is what makes ``../``, absolute paths, NUL and empty parts impossible.
    """
    parts = key.split("/")
    if len(key) > _MAX_KEY_CHARACTERS or len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidInput("not a well-formed object key", reason="NAME_INVALID", field="key")
    return key


def put(store: ObjectStore, key: str, data: bytes | Iterable[bytes]) -> bool:
    """Stores a whole object; False where the key was taken already (the first content stays)."""
    with store.writer(key) as writer:
        for piece in (data,) if isinstance(data, bytes) else data:
            writer.write(piece)
    return writer.stored


def get(store: ObjectStore, key: str) -> bytes:
    """A whole (small) object in memory."""
    return b"".join(store.read(key))
