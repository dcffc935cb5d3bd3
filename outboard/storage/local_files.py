"""Files of this machine as objects: written beside and linked whole, read by position, and what their errors mean."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from outboard.errors import NotFound, ResourceExhausted, Unavailable
from outboard.storage.protocol import CHUNK_BYTES, ObjectInfo

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FLUSH_BYTES = 32 * 1024 * 1024  # written pages go to the disk this often, so that the last flush is short


class FolderWriter:
    """Writes beside, flushes, then links under the final name, which fails where one exists."""

    def __init__(self, target: Path, partial: Path) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self._unflushed = 0
        self._stored = False
        self._temporary = partial / f"{os.getpid()}-{secrets.token_hex(12)}"
        with speaking_errors():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor: int | None = os.open(self._temporary, flags, 0o640)

    @property
    def stored(self) -> bool:
        """After the context: whether this content was stored (False: another writer was first)."""
        return self._stored

    @property
    def sha256(self) -> str:
        """Digest in hexadecimal of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes.

        Raises:
            ResourceExhausted: STORAGE_FULL.
            Unavailable: STORAGE_UNAVAILABLE.
        """
        if self._descriptor is None:
            raise ValueError("the writer is closed")
        rest = memoryview(data).cast("B")
        self._digest.update(rest)
        with speaking_errors():
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
                with speaking_errors():
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


class Pieces(Iterator[bytes]):
    """Reads by position, and closes the descriptor at the end or when it is dropped.

    An iterator instead of a generator: one that was never begun still closes its file.
    """

    def __init__(self, descriptor: int, offset: int, length: int | None) -> None:
        self._descriptor: int | None = descriptor
        self._offset = offset
        self._left = length

    def __next__(self) -> bytes:
        if self._descriptor is None:
            raise StopIteration
        size = CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left)
        with speaking_errors():
            piece = os.pread(self._descriptor, size, self._offset) if size else b""
        if not piece:
            self.close()
            raise StopIteration
        self._offset += len(piece)
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Closes the file; nothing more comes."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


def object_info(key: str, path: Path) -> ObjectInfo | None:
    """Facts of the object in a file; None where there is no file."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not path.is_file():
        return None
    return ObjectInfo(key, facts.st_size, facts.st_mtime, max(facts.st_atime, facts.st_mtime))


def touch(path: Path) -> None:
    """Sets the access time; a store that is mounted read-only still serves reads, so failing to is no error."""
    with suppress(OSError):
        facts = path.stat()
        os.utime(path, ns=(time.time_ns(), facts.st_mtime_ns))


def absent() -> NotFound:
    """What is raised for an object that there is not."""
    return NotFound("no such object in the store")


@contextmanager
def speaking_errors(key: str | None = None) -> Iterator[None]:
    """Turns OSError into what it means for a caller; paths of the host are not told.

    A missing file is NOT_FOUND where a key is given; where none is, it means a store that does not answer.
    """
    try:
        yield
    except FileNotFoundError as error:
        if key is not None:
            raise absent() from error
        raise _unavailable(error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("the store is full", reason="STORAGE_FULL", retry_after_seconds=60.0) from error
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> Unavailable:
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return Unavailable(f"the store does not answer ({name})", reason="STORAGE_UNAVAILABLE", retry_after_seconds=5.0)


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
