"""System shared memory between this process and a Triton server on the same machine.

One file in ``/dev/shm``, registered once, cut into slots that each hold the inputs and outputs of one batch. A slot
whose call ended without the server's answer (cancelled, too late, connection lost) is set aside for a while: the server
may still write to it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.errors import ResourceExhausted

_FOLDER = Path("/dev/shm")
_PREFIX = "outboard-windows-"
# Slots begin at multiples of a page, so that arrays in them are aligned.
_ALIGNMENT = 4096


class SharedMemory:
    """The slots. Not safe to use from several threads.

    Args:
        slots: how many.
        slot_bytes: of each.

    Attributes:
        name: of the file, and of the region on the server.
        byte_size: of the whole.

    Raises:
        ResourceExhausted: the machine's shared memory is too small (a container has 64 MB unless told otherwise).
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // _ALIGNMENT) * _ALIGNMENT
        self.byte_size = slots * self.slot_bytes
        _remove_abandoned()
        self.name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self._path = _FOLDER / self.name
        hidden = self._path.with_name(f".{self.name}")
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Held as long as this process lives: that tells its files from those that a crash left.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            hidden.rename(self._path)
            # Without the allocation a full /dev/shm would kill the process at its first write.
            os.posix_fallocate(self._descriptor, 0, self.byte_size)
            self._map = mmap.mmap(self._descriptor, self.byte_size)
        except OSError as error:
            self._path.unlink()
            os.close(self._descriptor)
            raise ResourceExhausted(
                f"shared memory for {slots} windows ({self.byte_size >> 20} MiB) cannot be had: {error.strerror}; "
                "enlarge /dev/shm or unset OUTBOARD_TRITON_SHARED_MEMORY"
            ) from None
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        self._free = list(range(slots))

    def take(self) -> int | None:
        """The offset of a free slot; None where all are taken or set aside."""
        return self._free.pop() * self.slot_bytes if self._free else None

    def give_back(self, offset: int) -> None:
        """Makes a slot free again."""
        self._free.append(offset // self.slot_bytes)

    def write(self, offset: int, array: NDArray[Any]) -> None:
        """Copies an array into the memory."""
        self._view(offset, array.shape, array.dtype)[...] = array

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A copy of an array in the memory."""
        return self._view(offset, shape, dtype).copy()

    def close(self) -> None:
        """Removes the file. The server keeps its own mapping until it forgets the region."""
        del self._bytes
        self._map.close()
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        return self._bytes[offset : offset + size].view(dtype).reshape(shape)


def arrays_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Size of float32 arrays of these shapes."""
    return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def _remove_abandoned() -> None:
    """Removes files of processes that crashed: nobody holds their lock."""
    for path in _FOLDER.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
