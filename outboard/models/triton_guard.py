"""Runs a program that must not outlive the process that asked for it.

    python -I triton_guard.py GRACE_SECONDS SHARED_MEMORY_PREFIX PROGRAM ARGUMENT...

Standard input is a pipe that only the asking process holds: when that ends, however it ends, the pipe closes, the
program gets SIGTERM, and SIGKILL when its grace is over; then what it started is ended, and what it left in shared
memory is removed. A program of its own, started by its path and with nothing but the standard library: it starts in a
moment and takes little memory.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

KILL_SIGNAL = signal.SIGUSR1
"""Tells the guard to kill the program at once."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = Path("/dev/shm")


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ended(program: subprocess.Popen[bytes], descriptor: int, also: list[int], seconds: float | None) -> bool:
    """Whether the program has ended when either it, or one of the other descriptors, has something to say."""
    select.select([descriptor, *also], [], [], seconds)
    return program.poll() is not None


def _end_orphans() -> None:
    """Ends what the program started and left: this process has become its parent."""
    with suppress(ChildProcessError):
        while True:
            for child in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            os.wait()


def main() -> int:
    """The program's exit status."""
    grace_seconds, prefix, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    reading, writing = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(writing, b"\0") and None)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)
    signal.signal(KILL_SIGNAL, lambda *_: program.kill())
    descriptor = os.pidfd_open(program.pid)
    if not _ended(program, descriptor, [reading, sys.stdin.fileno()], None):
        program.terminate()
        if not _ended(program, descriptor, [], grace_seconds):
            program.kill()
            program.wait()
    _end_orphans()
    for left in _SHARED_MEMORY.glob(f"{prefix}*"):
        left.unlink(missing_ok=True)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


if __name__ == "__main__":
    sys.exit(main())
