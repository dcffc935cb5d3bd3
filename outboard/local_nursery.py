"""Starts the services of the local mesh as forks of one process that has loaded what they share.

    python -m outboard.local_nursery SOCKET

Five interpreters that each load NumPy, SciPy, numba and gRPC for themselves take far more processor time than one that
loads them and forks. `Nursery` is the side of the mesh; this module, run as a program, is the other one. Orders come
through the socket whose descriptor is named on the command line, one JSON object a line, each answered by a process id.

Standard input is a pipe that only the mesh's process holds, and every child inherits it: when that process ends,
however it ends, the pipe closes and nursery and children exit at once.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from outboard.errors import Unavailable

# None of these starts a thread or opens a channel when it is loaded: only then is forking afterwards safe.
SERVER_MODULES = ("outboard.rpc.server", "outboard.rpc.channel")
STAGE_MODULES = (*SERVER_MODULES, "outboard.rpc.stage", "outboard.audio.analysis", "outboard.audio.chain")


@dataclass(frozen=True)
class Order:
    """One service to start: its module, where it listens, the file for its output, and what to load before the fork."""

    module: str
    listen: str
    log: str
    shared: tuple[str, ...]


class Child:
    """A service started by the nursery; a process that is no child of this one."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        try:
            self._descriptor: int | None = os.pidfd_open(process_id)
        except ProcessLookupError:
            self._descriptor = None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so long."""
        if self._descriptor is None:
            return True
        ended, _, _ = select.select([self._descriptor], [], [], max(0.0, seconds))
        if ended:
            os.close(self._descriptor)
            self._descriptor = None
        return bool(ended)

    def signal(self, number: int) -> None:
        """Sends a signal, unless the process is gone."""
        if self._descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)


class Nursery:
    """The mesh's side: one nursery process, started at once, loading while the mesh goes on."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "outboard.local_nursery", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C is for the command, which then stops its services in order
            )
        self._log = log
        self._socket = ours
        self._answers = ours.makefile("r", encoding="ascii")

    def start(self, order: Order) -> Child:
        """Starts one service.

        Raises:
            Unavailable: the nursery is gone.
        """
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(asdict(order)).encode() + b"\n")
            if answer := self._answers.readline():
                return Child(int(answer))
        last_words = self._log.read_text(errors="replace")[-2000:]
        raise Unavailable(f"the process that starts the services ended:\n{last_words}")

    def close(self) -> None:
        """Ends the nursery process; services that still run lose their standard input and end too."""
        self._answers.close()
        self._socket.close()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Forks once for each order, until the socket closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the mesh watches through process descriptors
    with socket.socket(fileno=int(sys.argv[1])) as commands, commands.makefile("r", encoding="ascii") as orders:
        order = _forked(commands, orders)
    if order:
        _become(order)


def _forked(commands: socket.socket, orders: Iterable[str]) -> Order | None:
    """Forks for each order. Returns it in the fork; None in the nursery itself, when the socket has closed."""
    for line in orders:
        order = Order(**json.loads(line))
        for name in order.shared:
            importlib.import_module(name)
        process_id = os.fork()
        if not process_id:
            return order
        commands.sendall(f"{process_id}\n".encode())
    return None


def _become(order: Order) -> None:
    """Turns a fresh fork into the service."""
    from setproctitle import setproctitle

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # the mesh may cut it
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = [order.module, "--listen", order.listen]
    setproctitle(f"python -m {order.module} --listen {order.listen}")
    threading.Thread(target=_exit_with_mesh, name="mesh-watch", daemon=True).start()
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _exit_with_mesh() -> None:
    while os.read(0, 1):
        pass
    # Nothing to drain: stages hold no state, and the workflow goes on from its last finished step.
    os._exit(1)


if __name__ == "__main__":
    main()
