"""Audio of any length outside of anonymous memory: a growing file on disk, mapped for reading.

The memory of every stage is bounded, so what must be seen whole is written to a spool and mapped. The file has no name
(it is unlinked as it is created), so nothing is left behind however the process ends, and its pages are the kernel's
page cache (RssFile), which the kernel gives back under pressure. A spool on tmpfs would be memory after all: such a
directory is refused.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from outboard.errors import FailedPrecondition, ResourceExhausted

BLOCK_FRAMES = 65536
"""Frames per block that `blocks` hands out by default (1.4 s at 48 kHz)."""

_BYTES_PER_SAMPLE = 4
_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


class Spool:
    """A disk-backed audio buffer that grows by `append` and is read through `array`.

    Args:
        channels: number of channels, at least 1.
        directory: a folder on a disk; unset means the system's temporary folder, or /var/tmp where that one is memory.

    Raises:
        FailedPrecondition: when the folder's file system lives in memory.
        ResourceExhausted: STORAGE_FULL, from `append`, when the disk is full; what was appended before stays readable.
    """

    def __init__(self, channels: int, directory: Path | None = None) -> None:
        if channels < 1:
            raise ValueError(f"a spool needs at least 1 channel, not {channels}")
        self.channels = channels
        self._frames = 0
        self._file: IO[bytes] | None = _open_unnamed(directory)

    @property
    def frames(self) -> int:
        """Frames appended so far."""
        return self._frames

    def append(self, block: NDArray[np.floating]) -> None:
        """Appends a block of shape (channels, any number of frames); it is stored as float32."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"expected a block of shape ({self.channels}, frames), got {block.shape}")
        if block.shape[1]:
            self.append_interleaved(np.ascontiguousarray(block.T, dtype=np.float32).data.cast("B"))

    def clear(self) -> None:
        """Forgets what was appended; an `array` from before is not to be read any more."""
        self._frames = 0

    def append_interleaved(self, samples: memoryview) -> None:
        """Appends whole frames of interleaved native float32 as they are (what a decoder's pipe delivers)."""
        frame_bytes = self.channels * _BYTES_PER_SAMPLE
        if samples.nbytes % frame_bytes:
            raise ValueError(f"{samples.nbytes} bytes are not a whole number of {frame_bytes}-byte frames")
        file = self._open_file()
        offset = self._frames * frame_bytes
        rest = samples
        while rest.nbytes:
            written = _write(file.fileno(), rest, offset)
            offset += written
            rest = rest[written:]
        self._frames += samples.nbytes // frame_bytes

    @property
    def array(self) -> NDArray[np.float32]:
        """Read-only mapping of everything appended so far, float32 of shape (channels, frames).

        The file is interleaved, so the array is a transposed view. It stays valid after `close`.
        """
        file = self._open_file()
        if self._frames == 0:
            return np.empty((self.channels, 0), dtype=np.float32)  # an empty file cannot be mapped
        shape = (self._frames, self.channels)
        mapped: np.memmap[tuple[int, int], np.dtype[np.float32]]
        mapped = np.memmap(file, dtype=np.float32, mode="r", shape=shape)
        return mapped.T

    def close(self) -> None:
        """Gives up the file; its disk space is free once no `array` is left. Closing twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the spool is closed")
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def blocks(array: NDArray[np.floating], size: int = BLOCK_FRAMES) -> Iterator[NDArray[np.float32]]:
    """Cuts (channels, frames) into contiguous float32 copies of `size` frames; the last is what remains, if any."""
    if size < 1:
        raise ValueError(f"blocks need at least 1 frame, not {size}")
    for start in range(0, array.shape[1], size):
        yield np.array(array[:, start : start + size], dtype=np.float32, order="C", subok=False)


def default_directory() -> Path:
    """The folder for spools when none is given: the first of the temporary folders that is on a disk.

    Raises:
        FailedPrecondition: when all of them live in memory; TMPDIR is then the way out.
    """
    for candidate in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        if candidate.is_dir() and os.access(candidate, os.W_OK) and not lives_in_memory(candidate):
            return candidate
    raise _not_on_disk()


def lives_in_memory(directory: Path) -> bool:
    """Whether the folder's file system keeps its files in memory (tmpfs and its kin)."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False  # no Linux: there a temporary folder is on a disk
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")  # "36 35 98:0 /root /point options - type source options"
        if fields.split()[2] == wanted:
            return kind.split()[0] in _MEMORY_FILE_SYSTEMS
    return False


def _open_unnamed(directory: Path | None) -> IO[bytes]:
    folder = default_directory() if directory is None else Path(directory)
    if lives_in_memory(folder):
        raise _not_on_disk()
    return tempfile.TemporaryFile(dir=folder, buffering=0, prefix="outboard-spool-")


def _not_on_disk() -> FailedPrecondition:
    return FailedPrecondition("the folder for spooled audio lives in memory (tmpfs); set TMPDIR to one on a disk")


def _write(descriptor: int, samples: memoryview, offset: int) -> int:
    try:
        return os.pwrite(descriptor, samples, offset)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceExhausted("the disk for spooled audio is full", reason="STORAGE_FULL") from error
        raise
