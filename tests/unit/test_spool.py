"""The spool: what goes in comes out, from a file without a name, on a disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio import spool as spool_module
from outboard.audio.spool import Spool, blocks, default_directory, lives_in_memory
from outboard.errors import FailedPrecondition, ResourceExhausted


@given(channels=st.integers(1, 4), lengths=st.lists(st.integers(0, 300), max_size=8), size=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_whatever_the_cuts_the_array_is_what_was_appended(channels: int, lengths: list[int], size: int) -> None:
    """Appending block by block, then reading whole or in blocks, gives the same samples bit for bit."""
    song = np.random.default_rng(1).standard_normal((channels, sum(lengths))).astype(np.float32)
    with Spool(channels) as spool:
        start = 0
        for length in lengths:
            spool.append(song[:, start : start + length])
            start += length
        assert spool.frames == song.shape[1]
        np.testing.assert_array_equal(spool.array, song)
        cut = list(blocks(spool.array, size))
    assert all(block.flags.c_contiguous and block.flags.owndata and type(block) is np.ndarray for block in cut)
    assert [block.shape[1] for block in cut[:-1]] == [size] * (len(cut) - 1)
    if cut:
        np.testing.assert_array_equal(np.concatenate(cut, axis=1), song)


def test_array_outlives_the_spool() -> None:
    """An array taken before `close` stays readable after it, and cannot be written to."""
    with Spool(2) as spool:
        spool.append(np.ones((2, 10), dtype=np.float32))
        array = spool.array
    assert array.sum() == 20.0
    assert not array.flags.writeable


def test_spool_leaves_no_name_behind(tmp_path: Path) -> None:
    """The file has no name even while it is in use, so no end of the process can leave it behind."""
    with Spool(1, tmp_path) as spool:
        spool.append(np.ones((1, 1000), dtype=np.float32))
        assert list(tmp_path.iterdir()) == []


def test_wrong_shapes_are_refused() -> None:
    """A block with another number of channels, or half a frame, is a mistake and not a guess."""
    with Spool(2) as spool:
        with pytest.raises(ValueError, match="shape"):
            spool.append(np.ones((1, 4), dtype=np.float32))
        with pytest.raises(ValueError, match="whole number"):
            spool.append_interleaved(memoryview(bytes(12)))
    with pytest.raises(ValueError, match="closed"):
        spool.append(np.ones((2, 4), dtype=np.float32))


def test_folder_in_memory_is_refused() -> None:
    """A spool on tmpfs would be anonymous memory under another name, so it is refused with what to do."""
    shared_memory = Path("/dev/shm")
    if not (shared_memory.is_dir() and lives_in_memory(shared_memory)):
        pytest.skip("this machine has no tmpfs at /dev/shm")
    with pytest.raises(FailedPrecondition, match="TMPDIR"):
        Spool(1, shared_memory)
    assert not lives_in_memory(default_directory())


def test_full_disk_is_resource_exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is STORAGE_FULL, and what was appended before stays readable."""
    with Spool(1) as spool:
        spool.append(np.ones((1, 8), dtype=np.float32))

        def full(descriptor: int, data: memoryview, offset: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(spool_module.os, "pwrite", full)
        with pytest.raises(ResourceExhausted) as caught:
            spool.append(np.ones((1, 8), dtype=np.float32))
        monkeypatch.undo()
        assert caught.value.reason == "STORAGE_FULL"
        assert spool.frames == 8
        assert spool.array.shape == (1, 8)


_FILL = """
import sys
import numpy as np
from outboard.audio.spool import Spool, blocks

def anonymous_kib():
    rows = [row.split() for row in open("/proc/self/status")]
    return sum(int(row[1]) for row in rows if row[0] in ("RssAnon:", "RssShmem:"))

block = np.ones((2, 65536), dtype=np.float32)
total, peak = 0.0, 0
with Spool(2) as spool:
    for index in range(int(sys.argv[1])):
        spool.append(block)
        peak = max(peak, anonymous_kib())
    for read in blocks(spool.array):
        total += float(read[0, 0])
        peak = max(peak, anonymous_kib())
print(peak)
"""


def test_anonymous_memory_does_not_grow_with_the_spool() -> None:
    """Writing and reading 10 minutes takes as much anonymous memory as 15 seconds do (within 4 MiB)."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    short, long = (
        int(subprocess.run([sys.executable, "-c", _FILL, str(count)], check=True, capture_output=True).stdout)
        for count in (11, 440)
    )
    assert long - short < 4096, f"{short} KiB for 15 s, {long} KiB for 10 min"
