"""The decoder's process as the parent sees it: started under limits, read with a deadline, never left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from outboard.errors import Internal, InvalidInput

_SCRIPT = Path(__file__).with_name("decode_child.py")
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")
_PIPE_BYTES = 1 << 20
_HEAD = struct.Struct("<cI")
_MAX_MESSAGE_BYTES = 32 << 20
_EXIT_SECONDS = 5.0


class DecoderProcess:
    """Runs `decode_child.py` on an open file and yields what it says.

    Args:
        file: open for reading, at its start; the child gets nothing else.
        cpu_seconds, memory_bytes: limits that the child puts on itself before it looks at the file.
        wall_seconds: from the start to the last message, time that the reader takes included.
    """

    def __init__(self, file: IO[bytes], cpu_seconds: int, memory_bytes: int, wall_seconds: float) -> None:
        self._deadline = time.monotonic() + wall_seconds
        self._wall_seconds = wall_seconds
        self._ready = False
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._process = subprocess.Popen(
            [*_command(), str(cpu_seconds), str(memory_bytes)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(PermissionError):  # the user's share of pipe memory is used up: slower, not wrong
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def messages(self, field: str) -> Iterator[tuple[bytes, memoryview]]:
        """Yields (kind, payload) until the child ends; the caller stops at the kind that says so.

        Raises:
            InvalidInput: AUDIO_DECODE_LIMIT when the time is over or the child was stopped, AUDIO_UNREADABLE when it
                broke.
            Internal: the decoder could not even be loaded.
        """
        while True:
            kind, size = _HEAD.unpack(self._read(_HEAD.size, field))
            if size > _MAX_MESSAGE_BYTES:
                raise self._broken(field)
            payload = memoryview(self._read(size, field))
            if kind == b"S":
                self._ready = True
            else:
                yield kind, payload

    def _read(self, size: int, field: str) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            self._wait(field)
            count = os.readv(self._pipe, [view[filled:]])
            if count == 0:
                raise self._broken(field)
            filled += count
        return data

    def _wait(self, field: str) -> None:
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        rest_ms = int((self._deadline - time.monotonic()) * 1000)
        if rest_ms <= 0 or not poller.poll(rest_ms):
            message = f"decoding the file takes longer than the {self._wall_seconds:g} s allowed"
            raise InvalidInput(message, reason="AUDIO_DECODE_LIMIT", field=field)

    def _broken(self, field: str) -> InvalidInput | Internal:
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if not self._ready:
            return Internal(f"the decoder process did not start (status {status})")
        if status < 0:  # a signal: out of processor time or memory, or a crash in a decoder
            message = f"the decoder was stopped by signal {-status} while decoding the file"
            return InvalidInput(message, reason="AUDIO_DECODE_LIMIT", field=field)
        return InvalidInput("the decoder failed on the file", reason="AUDIO_UNREADABLE", field=field)


def _command() -> list[str]:
    # -P and -s: nothing from the working folder or the user's site; -B: the child may not write files.
    return [sys.executable, "-P", "-s", "-B", str(_SCRIPT)]
