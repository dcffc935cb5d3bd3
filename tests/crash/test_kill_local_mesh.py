"""The real mesh of one machine, every process of it killed with SIGKILL in the middle of a job, and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.wave_header import float_wave_header
from outboard.client import Client, failure
from outboard.local import Mesh, local_mesh
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2 as messages

pytestmark = pytest.mark.timeout(600)
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 8.0
_SERVE = (
    "import sys, time; from pathlib import Path; from outboard.local import local_mesh\n"
    "with local_mesh(Path(sys.argv[1])) as mesh: print(mesh.address, flush=True); time.sleep(600)"
)
Job = messages.Job
BEHIND_SEPARATION = (Job.STATE_RESTORING, Job.STATE_MIXING, Job.STATE_MASTERING)
# The step that calls each stage.
STEPS = {"Separate": "Steps.separate", "Restore": "Steps.restore", "Mix": "Steps.mix", "Master": "Steps.master"}


def _song() -> bytes:
    demo = synthesise(12, _SECONDS)
    head = float_wave_header(demo.song.shape[1], 2, demo.sample_rate_hertz)
    return head + demo.song.T.astype("<f4").tobytes()


def _processes(session: int) -> list[int]:
    """Every living process of a session: the command, the nursery and all services."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state != "Z":
                    found.append(int(entry.name))
    return found


def _kill_all(command: subprocess.Popen[str]) -> None:
    while processes := _processes(command.pid):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    command.wait()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves the mesh of a store, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(tmp_path)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        _kill_all(process)


def _finished_steps(store: Path) -> Counter[str]:
    """How often each step was recorded as done."""
    with contextlib.closing(sqlite3.connect(store / "workflows.sqlite")) as database:
        return Counter(name for (name,) in database.execute("SELECT function_name FROM operation_outputs"))


def _calls(mesh: Mesh) -> Counter[str]:
    """Calls of stages that the logs of this mesh's life hold, by method."""
    lines = [line for log in mesh.log_directory.glob("*.log") for line in log.read_text().splitlines()]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return Counter(entry["method"].rpartition("/")[2] for entry in entries if "method" in entry)


def _calls_when_told(mesh: Mesh) -> Counter[str]:
    """The calls, once the last one stands in the log: a server writes of a call after the client has its answer."""
    until = time.monotonic() + 20
    while not (calls := _calls(mesh))["WatchJob"] and time.monotonic() < until:
        time.sleep(0.05)
    return calls


def test_killed_mesh_finishes_its_job(command: subprocess.Popen[str], tmp_path: Path) -> None:
    """Killed behind the separation, the job finishes after a restart; no stage that had finished is called again."""
    assert command.stdout is not None
    with Client(command.stdout.readline().strip()) as client:
        upload = client.upload(_song())
        job = client.create_job(Job(song=messages.SongInput(upload=upload.name)))
        reached = next(state for state in client.watch(job.name) if state.state in BEHIND_SEPARATION)
        _kill_all(command)
    finished = _finished_steps(tmp_path)
    assert finished["Steps.separate"] == 1, finished
    assert not finished["Finish.succeed"], f"the job was not caught in its middle: {reached.state}, {finished}"
    with local_mesh(tmp_path) as mesh:
        with Client(mesh.address) as client:
            job = client.wait(job.name)
            assert job.state == Job.STATE_SUCCEEDED, failure(job)
            assert {artifact.name.rpartition("/")[2] for artifact in job.artifacts} >= {"master.wav", "vocals.wav"}
        calls = _calls_when_told(mesh)
    assert calls["WatchJob"], f"the logs do not tell the calls: {calls}"
    again = {method: calls[method] for method, step in STEPS.items() if calls[method] > _wanted(step) - finished[step]}
    assert not again, f"called again: {again}, finished before: {finished}"
    assert not list((tmp_path / "partial").iterdir())
    keys = [info.key for info in FolderStore(tmp_path).list("default/results")]
    whole = {key.split("/")[2] for key in keys if key.endswith("/manifest.json")}
    assert {key.split("/")[2] for key in keys} == whole, "an interrupted attempt was left behind"


def _wanted(step: str) -> int:
    """How often a step runs in a job of four stems."""
    return 4 if step == "Steps.restore" else 1
