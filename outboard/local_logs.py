"""Logs of the local mesh's services: one file each, begun anew at each start and bounded in size.

A service only appends to its file, whose name and descriptor it keeps for as long as it lives. So it is the mesh that
bounds it: past the limit what is there moves to ``NAME.1.log``, over what was there before, and the file goes on empty.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

LOG_BYTES = 8 * 1024 * 1024
"""Size above which a log is set aside; a service has at most three such files: current, previous, and of a crash."""

_LAST_LINES = 10


@dataclass(frozen=True)
class ServiceLog:
    """The log of one service."""

    path: Path

    def begin(self) -> None:
        """Empties the log."""
        self.path.write_bytes(b"")

    def text(self) -> str:
        """What was written so far."""
        return self.path.read_text(errors="replace")

    def last_words(self) -> str:
        """The end of it, for a person."""
        return "\n".join(self.text().strip().splitlines()[-_LAST_LINES:])

    def keep_crashed(self) -> None:
        """Keeps the log of a service that ended as ``NAME.crashed.log``, in the place of an earlier one."""
        self.path.replace(self.path.with_suffix(".crashed.log"))

    def bound(self, maximum_bytes: int) -> None:
        """Begins anew where the log is larger, keeping what is there as ``NAME.1.log``.

        The writer's descriptor stays good, since it appends. What it writes between copy and cut is lost.
        """
        if self.path.stat().st_size > maximum_bytes:
            shutil.copyfile(self.path, self.path.with_suffix(".1.log"))
            os.truncate(self.path, 0)
