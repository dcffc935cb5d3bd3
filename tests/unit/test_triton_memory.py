"""The shared memory between a service and a model server on the same machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outboard.errors import ResourceExhausted
from outboard.models.triton_memory import SharedMemory

_FOLDER = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not os.access(_FOLDER, os.W_OK), reason="no /dev/shm here")


def test_slots_keep_their_arrays_apart() -> None:
    """What is written to a slot is read from it, whatever the others hold; taken slots are not given twice."""
    memory = SharedMemory(3, 5000)
    offsets = [memory.take() for _ in range(3)]
    assert memory.take() is None
    arrays = [np.full((2, 600), number, dtype=np.float32) for number in range(3)]
    for offset, array in zip(offsets, arrays, strict=True):
        assert offset is not None
        memory.write(offset, array)
    for offset, array in zip(offsets, arrays, strict=True):
        assert offset is not None
        np.testing.assert_array_equal(memory.read(offset, array.shape, array.dtype), array)
    memory.give_back(offsets[1] or 0)
    assert memory.take() == offsets[1]
    memory.close()
    assert not (_FOLDER / memory.name).exists()


def test_memory_of_a_killed_process_is_removed_by_the_next() -> None:
    """A file that a killed process left goes when another process makes its own; a living process keeps its file."""
    program = (
        "import time\n"
        "from outboard.models.triton_memory import SharedMemory\n"
        "print(SharedMemory(1, 10).name, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        SharedMemory(1, 10).close()
        assert (_FOLDER / name).exists(), "its owner lives"
        other.send_signal(signal.SIGKILL)
        other.wait()
    SharedMemory(1, 10).close()
    assert not (_FOLDER / name).exists()


def test_too_little_memory_is_told() -> None:
    """Asking for more than the machine has is an error that names the setting, not a crash at the first write."""
    with pytest.raises(ResourceExhausted, match="OUTBOARD_TRITON_SHARED_MEMORY"):
        SharedMemory(1024, 2**32)
    assert not list(_FOLDER.glob(f"*outboard-windows-{os.getpid()}-*"))
