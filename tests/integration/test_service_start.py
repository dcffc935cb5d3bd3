"""What a service says when it cannot start: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


def _start(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{name}", *arguments]
    quiet = {"GRPC_VERBOSITY": "NONE", "OUTBOARD_TELEMETRY_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        command, cwd=_ROOT, env={**os.environ, **quiet, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("name", "arguments", "environment", "told"),
    [
        ("orchestrator", ["--listen", "bogus"], {}, "--listen: an address is host:port or unix:PATH, not 'bogus'"),
        ("orchestrator", [], {"OUTBOARD_PEER_MIXER": "nowhere"}, "OUTBOARD_PEER_MIXER"),
        ("restorer", [], {"OUTBOARD_LIMIT_WAITING_CALLS": "many"}, "OUTBOARD_LIMIT_WAITING_CALLS"),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    name: str, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    """A wrong option or variable ends the process with exit code 2 and one line that names it."""
    done = _start(name, *arguments, **environment)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"python -m services.{name}: ")
    assert told in lines[0]


def test_taken_address_is_told(tmp_path: Path) -> None:
    """An address that another process has ends the orchestrator with exit code 1 and one line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _start("orchestrator", "--listen", address, OUTBOARD_STORE_DIRECTORY=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"python -m services.orchestrator: cannot listen on {address}: it is taken, or not of this machine"
    )
    assert "Traceback" not in done.stderr
