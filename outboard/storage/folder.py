"""An `ObjectStore` in a folder of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from outboard.errors import FailedPrecondition, OutboardError
from outboard.storage.local_files import FolderWriter, Pieces, absent, object_info, speaking_errors, touch
from outboard.storage.protocol import ObjectInfo, check_key

_STALE_SECONDS = 24 * 3600.0


class FolderStore:
    """An `ObjectStore` in one folder: ``objects/`` by key, ``partial/`` for what is being written.

    Last use is kept as each file's access time, set explicitly (mounts with noatime would not keep it).
    """

    def __init__(self, root: Path) -> None:
        folder = Path(root).absolute()
        self._objects = folder / "objects"
        self._partial = folder / "partial"
        self._pins: Counter[str] = Counter()
        self._lock = threading.Lock()
        with speaking_errors():
            self._objects.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir(parents=True, exist_ok=True)
            self._sweep_partial()

    def writer(self, key: str) -> FolderWriter:
        """Begins an object of any size, in bounded memory; use it as a context, which stores or discards it.

        Raises:
            InvalidInput: NAME_INVALID, as every method does for a malformed key.
            ResourceExhausted: STORAGE_FULL; also later, from `write` and the end of the context.
            Unavailable: STORAGE_UNAVAILABLE; likewise.
        """
        return FolderWriter(self._path(key), self._partial)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Pieces of CHUNK_BYTES (the last one shorter) from a byte offset, at most `length` bytes; counts as use.

        An object that is deleted meanwhile can be read to its end.

        Raises:
            NotFound: there is no such object; raised by the call itself, not by the first piece.
        """
        path = self._path(key)
        with speaking_errors(key):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        touch(path)
        return Pieces(descriptor, offset, length)

    def stat(self, key: str, *, mark_used: bool = False) -> ObjectInfo | None:
        """Facts of an object, or None. With `mark_used` it counts as used now, as reading does."""
        path = self._path(key)
        with speaking_errors():
            info = object_info(key, path)
        if info and mark_used:
            touch(path)
        return info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a whole-part prefix such as ``TENANT/uploads``, in order; the empty one lists all."""
        top = self._objects
        if prefix:
            check_key(f"{prefix}/x")
            top = top / prefix
        with speaking_errors():
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    path = Path(folder, name)
                    info = object_info(path.relative_to(self._objects).as_posix(), path)
                    if info:
                        yield info

    def delete(self, key: str) -> bool:
        """Removes an object, and folders that it leaves empty; False where there was none."""
        path = self._path(key)
        with speaking_errors():
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
        """The object's own file, kept from eviction while the context lasts; never write to it.

        Raises:
            NotFound: there is no such object.
        """
        path = self._path(key)
        if self.stat(key) is None:
            raise absent()
        touch(path)
        with self.pinned([key]):
            yield path

    @contextmanager
    def pinned(self, keys: Iterable[str]) -> Iterator[None]:
        """Keeps objects, or everything below a prefix, from eviction by this process while the context lasts."""
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
        """Raises FailedPrecondition, STORAGE_UNSUPPORTED: a folder has no URLs."""
        raise _no_urls()

    def upload_url(self, key: str, lifetime_seconds: float) -> str:
        """Raises FailedPrecondition, STORAGE_UNSUPPORTED: a folder has no URLs."""
        raise _no_urls()

    def evict(
        self,
        *,
        idle_seconds: float | None = None,
        max_bytes: int | None = None,
        protected: Collection[str] = (),
        last: Collection[str] = (),
    ) -> Sequence[str]:
        """Removes what was not used for `idle_seconds`, then the least recently used until `max_bytes` are left.

        Args:
            idle_seconds: time-to-live since the last use; none: objects go only for their size.
            max_bytes: size of all objects together; none: objects go only for their age.
            protected: keys or prefixes; what is, or lies below, one of them stays, as pinned objects do.
            last: keys or prefixes that no time-to-live takes, and the size only when nothing else is left to go.

        Returns:
            The removed keys, in order.
        """
        with self._lock:
            kept = set(protected) | set(self._pins)
        now = time.time()
        objects = [(_below(info.key, last), info) for info in self.list("")]
        objects.sort(key=lambda entry: (entry[0], entry[1].use_time, entry[1].key))
        total = sum(info.size for _, info in objects)
        removed = []
        for is_last, info in objects:
            idle = not is_last and idle_seconds is not None and now - info.use_time > idle_seconds
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


def _no_urls() -> OutboardError:
    return FailedPrecondition(
        "a folder has no URLs: use UploadAudio and DownloadArtifact, or an S3 store", reason="STORAGE_UNSUPPORTED"
    )
