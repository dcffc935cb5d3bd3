"""Where artifacts live: one small protocol, and a folder on disk that keeps it.

Keys look like ``TENANT/more/parts``. An object is written once: the first stored content wins, and a later writer of
the same key is told so. An object appears whole or not at all (written beside, flushed to the disk, then linked under
its name), whatever kills the writer.

What fails speaks the same for every kind of store: STORAGE_FULL when there is no room, STORAGE_UNAVAILABLE when the
store does not answer, NOT_FOUND for an absent object, NAME_INVALID for a key that is not well-formed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from outboard.errors import FailedPrecondition, InvalidInput, NotFound, OutboardError, ResourceExhausted, Unavailable

CHUNK_BYTES = 256 * 1024
"""Bytes per piece when objects are streamed."""

_MAX_KEY_CHARACTERS = 900
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STALE_SECONDS = 24 * 3600.0
_FLUSH_BYTES = 32 * 1024 * 1024  # written pages go to the disk this often, so that the last flush is short


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


def sha256_of(store: ObjectStore, key: str) -> str:
    """Digest in hexadecimal of a stored object, read in bounded memory."""
    digest = hashlib.sha256()
    for piece in store.read(key):
        digest.update(piece)
    return digest.hexdigest()


class FolderStore:
    """An `ObjectStore` in one folder: ``objects/`` by key, ``partial/`` for what is being written.

    Last use is kept as each file's access time, set explicitly (mounts with noatime would not keep it).
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root).absolute()
        self._objects = self._root / "objects"
        self._partial = self._root / "partial"
        self._pins: Counter[str] = Counter()
        self._lock = threading.Lock()
        with _speaking_errors():
            self._objects.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir(parents=True, exist_ok=True)
            self._sweep_partial()

    def writer(self, key: str) -> FolderWriter:
        return FolderWriter(self._path(key), self._partial, self._root)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self._path(key)
        with _speaking_errors(key):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _mark_used(path)
        return _pieces(descriptor, offset, length)

    def stat(self, key: str, *, mark_used: bool = False) -> ObjectInfo | None:
        path = self._path(key)
        with _speaking_errors():
            info = _info(key, path)
        if info and mark_used:
            _mark_used(path)
        return info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        top = self._objects
        if prefix:
            check_key(f"{prefix}/x")
            top = top / prefix
        with _speaking_errors():
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    path = Path(folder, name)
                    info = _info(path.relative_to(self._objects).as_posix(), path)
                    if info:
                        yield info

    def delete(self, key: str) -> bool:
        path = self._path(key)
        with _speaking_errors():
            if not path.is_file():
                return False
            path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self._objects:
                break
            try:
                parent.rmdir()
            except OSError:  # not empty, or another one was faster
                break
        return True

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        if self.stat(key) is None:
            raise _absent()
        _mark_used(path)
        with self.pinned([key]):
            yield path

    @contextmanager
    def pinned(self, keys: Iterable[str]) -> Iterator[None]:
        held = list(keys)
        with self._lock:
            self._pins.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(held)
                self._pins += Counter()  # forgets what is held no more

    def download_url(self, key: str, lifetime_seconds: float) -> str:
        raise _no_urls()

    def upload_url(self, key: str, lifetime_seconds: float) -> str:
        raise _no_urls()

    def evict(
        self, *, idle_seconds: float | None = None, max_bytes: int | None = None, protected: Collection[str] = ()
    ) -> Sequence[str]:
        """Removes what was not used for `idle_seconds`, then the least recently used until `max_bytes` are left.

        Pinned objects stay, and so does every object that is, or lies below, one of `protected` (keys or prefixes).
        Returns the removed keys.
        """
        with self._lock:
            kept = set(protected) | set(self._pins)
        now = time.time()
        objects = sorted(self.list(""), key=lambda info: (info.use_time, info.key))
        total = sum(info.size for info in objects)
        removed = []
        for info in objects:
            idle = idle_seconds is not None and now - info.use_time > idle_seconds
            crowded = max_bytes is not None and total > max_bytes
            if (idle or crowded) and not _below(info.key, kept) and self.delete(info.key):
                total -= info.size
                removed.append(info.key)
        return removed

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _sweep_partial(self) -> None:
        """Removes what writers that are gone left behind."""
        for path in self._partial.iterdir():
            process_id = path.name.partition("-")[0]
            gone = process_id.isdigit() and not _is_alive(int(process_id))
            with suppress(FileNotFoundError):
                if gone or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


class FolderWriter:
    """Writes beside, flushes, then links under the final name, which fails where one exists."""

    def __init__(self, target: Path, partial: Path, root: Path) -> None:
        self._target = target
        self._root = root
        self._digest = hashlib.sha256()
        self._unflushed = 0
        self._stored = False
        self._temporary = partial / f"{os.getpid()}-{secrets.token_hex(12)}"
        with _speaking_errors():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor: int | None = os.open(self._temporary, flags, 0o640)

    @property
    def stored(self) -> bool:
        return self._stored

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        if self._descriptor is None:
            raise ValueError("the writer is closed")
        rest = memoryview(data).cast("B")
        self._digest.update(rest)
        with _speaking_errors():
            while rest.nbytes:
                written = os.write(self._descriptor, rest)
                rest = rest[written:]
                self._unflushed += written
            if self._unflushed >= _FLUSH_BYTES:
                os.fdatasync(self._descriptor)
                self._unflushed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if kind is None:
                with _speaking_errors():
                    os.fsync(descriptor)
                    self._stored = self._link()
        finally:
            os.close(descriptor)
            with suppress(OSError):
                self._temporary.unlink()

    def _link(self) -> bool:
        while True:
            made = _make_folders(self._target.parent)
            try:
                os.link(self._temporary, self._target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                if not self._temporary.exists():
                    raise
                continue  # a deletion removed the folder as it was empty: once more
            for folder in (self._target.parent, *made):
                _flush_folder(folder)
            return True


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and its parents; returns the parents whose entries are new."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, exist_ok=True)
    return [path.parent for path in missing]


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # removed since, with what was in it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, offset: int, length: int | None) -> Iterator[bytes]:
    """Reads by position and closes the descriptor at the end, or when the generator is dropped."""
    return _Pieces(descriptor, offset, length)


class _Pieces(Iterator[bytes]):
    """An iterator instead of a generator: one that was never begun still closes its file when dropped."""

    def __init__(self, descriptor: int, offset: int, length: int | None) -> None:
        self._descriptor: int | None = descriptor
        self._offset = offset
        self._left = length

    def __next__(self) -> bytes:
        if self._descriptor is None:
            raise StopIteration
        size = CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left)
        with _speaking_errors():
            piece = os.pread(self._descriptor, size, self._offset) if size else b""
        if not piece:
            self.close()
            raise StopIteration
        self._offset += len(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


def _info(key: str, path: Path) -> ObjectInfo | None:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not path.is_file():
        return None
    return ObjectInfo(key, facts.st_size, facts.st_mtime, max(facts.st_atime, facts.st_mtime))


def _mark_used(path: Path) -> None:
    """Sets the access time; a store that is mounted read-only still serves reads, so failing to is no error."""
    with suppress(OSError):
        facts = path.stat()
        os.utime(path, ns=(time.time_ns(), facts.st_mtime_ns))


def _below(key: str, prefixes: Collection[str]) -> bool:
    parts = key.split("/")
    return any("/".join(parts[:count]) in prefixes for count in range(1, len(parts) + 1))


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _absent() -> NotFound:
    return NotFound("no such object in the store")


def _no_urls() -> OutboardError:
    return FailedPrecondition(
        "a folder has no URLs: use UploadAudio and DownloadArtifact, or an S3 store", reason="STORAGE_UNSUPPORTED"
    )


@contextmanager
def _speaking_errors(key: str | None = None) -> Iterator[None]:
    """Turns OSError into what it means for a caller; paths of the host are not told."""
    try:
        yield
    except FileNotFoundError as error:
        if key is not None:
            raise _absent() from error
        raise _unavailable(error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("the store is full", reason="STORAGE_FULL", retry_after_seconds=60.0) from error
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> Unavailable:
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return Unavailable(f"the store does not answer ({name})", reason="STORAGE_UNAVAILABLE", retry_after_seconds=5.0)
