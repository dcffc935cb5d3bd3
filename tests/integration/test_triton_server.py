"""The launcher of the real Triton server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outboard.errors import FailedPrecondition, Unavailable
from outboard.models.triton_server import TritonServer
from tests.integration.triton_toys import needs_triton, write_repository

_SHARED_MEMORY = Path("/dev/shm")

_HOST = """
import sys, time
from pathlib import Path
from outboard.models.triton_server import TritonServer
repository = Path(sys.argv[1])
server = TritonServer(repository, repository / "log", models=["toy"])
server.start()
print("ready", flush=True)
time.sleep(100)
"""


def _processes_of(repository: Path) -> list[str]:
    """Command lines of the server and the model processes that serve a repository."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
        if str(repository) in command and "triton" in command and "-c" not in command.split()[:2]:
            found.append(command)
    return found


def _shared_memory(owner: int) -> list[str]:
    return [path.name for path in _SHARED_MEMORY.glob(f"outboard-triton-{owner}-*")]


@needs_triton
def test_start_restart_and_stop_leave_nothing_behind(tmp_path: Path) -> None:
    """A server is ready when `start` returns, serves again at the same address after a kill, and leaves no process and
    no shared memory when it is stopped.
    """
    repository = write_repository(tmp_path / "models")
    server = TritonServer(repository, tmp_path / "log", models=["toy"], exit_seconds=5)
    with server:
        assert len(_processes_of(repository)) == 3, "guard, server, and the process of one model"
        address = server.address
        server.kill()
        assert not _processes_of(repository)
        server.start()
        assert server.address == address
        assert not server.ended
    assert server.ended
    assert not _processes_of(repository)
    assert not _shared_memory(os.getpid())


@needs_triton
def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """When the process that started a server is killed, the server, its models and its shared memory go as well."""
    repository = write_repository(tmp_path / "models")
    host = subprocess.Popen([sys.executable, "-c", _HOST, str(repository)], stdout=subprocess.PIPE, text=True)
    with host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        assert _processes_of(repository)
        host.send_signal(signal.SIGKILL)
        host.wait()
    deadline = time.monotonic() + 20
    while (_processes_of(repository) or _shared_memory(host.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _processes_of(repository)
    assert not _shared_memory(host.pid)


@needs_triton
def test_a_model_that_does_not_load_is_told(tmp_path: Path) -> None:
    """A server whose model cannot be loaded does not start, and the error carries the model's own words."""
    repository = write_repository(tmp_path / "models")
    with pytest.raises(Unavailable, match="the weights of this toy are gone") as caught:
        TritonServer(repository, tmp_path / "log", models=["broken"]).start()
    assert caught.value.reason == "MODEL_SERVER_UNAVAILABLE"
    assert not _processes_of(repository)


@needs_triton
def test_the_program_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """``python -m outboard.models.triton_server`` says where it listens, and ends with status 0 and without remains on
    SIGTERM.
    """
    repository = write_repository(tmp_path / "models")
    command = [sys.executable, "-m", "outboard.models.triton_server", str(repository), "--model", "toy"]
    with subprocess.Popen([*command, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("triton listening on 127.0.0.1:")
        program.terminate()
        assert program.wait(60) == 0
    assert not _processes_of(repository)


def test_a_missing_installation_is_told(tmp_path: Path) -> None:
    """Without an installed server the error names the command that installs it."""
    with pytest.raises(FailedPrecondition, match="make triton"):
        TritonServer(tmp_path, tmp_path / "log", installation=tmp_path / "absent").start()
