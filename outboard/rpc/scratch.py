"""Folders for the files that a call renders, removed with the call.

A process that is killed cannot remove its folders. Each folder is locked for as long as it is in use (the kernel
releases the lock with the process), so that the next start on the same machine knows which ones nobody owns any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from outboard.audio.spool import default_directory, lives_in_memory
from outboard.errors import FailedPrecondition

_PREFIX = "outboard-call-"
_NEW_SECONDS = 5.0
_log = logging.getLogger(__name__)


def spool_directory(directory: Path | None) -> Path:
    """The folder for spooled audio and rendered files, created if need be.

    Raises:
        FailedPrecondition: it lives in memory.
    """
    if directory is None:
        return default_directory()
    directory.mkdir(parents=True, exist_ok=True)
    if lives_in_memory(directory):
        raise FailedPrecondition("OUTBOARD_SPOOL_DIRECTORY lives in memory (tmpfs); it must be a folder on a disk")
    return directory


@contextlib.contextmanager
def scratch_folder(directory: Path | None) -> Iterator[Path]:
    """A new empty folder, removed with all that is in it on the way out."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=spool_directory(directory)))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned(directory: Path | None) -> None:
    """Remove the folders of processes that are gone."""
    for folder in spool_directory(directory).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            # A new folder is locked a moment after it is made.
            if time.time() - folder.stat().st_mtime < _NEW_SECONDS:
                continue
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                _log.warning("removed what a killed process left", extra={"folder": folder.name})
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)
