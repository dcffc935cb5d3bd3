"""The whole mesh on one machine, with the real services: one command serves, others join, nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.wave_header import float_wave_header
from outboard.client import Client, failure
from outboard.local import Mesh, local_mesh
from outboard.v1 import job_service_pb2 as messages

pytestmark = pytest.mark.timeout(600)
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 6.0
Job = messages.Job


def _children(marker: str) -> dict[int, str]:
    """Processes of a mesh, by id: those whose command line holds its folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile
                command = (entry / "cmdline").read_text().replace("\0", " ")
                if marker in command:
                    found[int(entry.name)] = command
    return found


@pytest.fixture(scope="module")
def song() -> bytes:
    """A few seconds of a demo song as a float WAV."""
    demo = synthesise(11, _SECONDS)
    frames = demo.song.shape[1]
    return float_wave_header(frames, 2, demo.sample_rate_hertz) + demo.song.T.astype("<f4").tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def mesh(folder: Path) -> Iterator[Mesh]:
    with local_mesh(folder) as made:
        yield made
    assert not _children(str(folder)), "the mesh left processes behind"


def _job(client: Client, song: bytes) -> Job:
    upload = client.upload(song)
    return client.wait(client.create_job(Job(song=messages.SongInput(upload=upload.name))).name)


def test_song_becomes_a_master(mesh: Mesh, song: bytes, tmp_path: Path) -> None:
    """A real song through real services: every file is there, and the report tells both sides at the song's length."""
    with Client(mesh.address) as client:
        job = _job(client, song)
        assert job.state == Job.STATE_SUCCEEDED, failure(job)
        client.download_all(job, tmp_path)
    assert job.report.before.frames == round(_SECONDS * 48000)
    assert job.report.after.frames == job.report.before.frames
    assert job.report.mastering.engine.name
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        "master.wav", "mix.wav", "preview_ab.mp3", "report.html", "report.json",
        "stems/vocals.wav", "stems/drums.wav", "stems/bass.wav", "stems/other.wav",
    }  # fmt: skip


def test_known_song_is_answered_at_once(mesh: Mesh, song: bytes) -> None:
    """The same song again computes nothing."""
    with Client(mesh.address) as client:
        job = _job(client, song)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert all(entry.reused for entry in job.progress)


def test_second_command_joins(mesh: Mesh, folder: Path) -> None:
    """Another process on the same store gets the same address, starts nothing, and stops nothing when it ends."""
    before = set(_children(str(folder)))
    script = (
        "import sys; from pathlib import Path; from outboard.local import local_mesh\n"
        "with local_mesh(Path(sys.argv[1])) as mesh: print(mesh.joined, mesh.address)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", mesh.address]
    assert set(_children(str(folder))) == before


def test_crashed_stage_is_started_again(mesh: Mesh, folder: Path, song: bytes) -> None:
    """A stage that is killed comes back by itself, and the next job succeeds."""
    (victim,) = [process for process, command in _children(str(folder)).items() if "services.separator" in command]
    os.kill(victim, signal.SIGKILL)
    with Client(mesh.address) as client:
        # One frame less: nothing of the first job serves.
        shorter = float_wave_header(48000, 2, 48000) + song[92 : 92 + 8 * 48000]
        job = _job(client, shorter)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)


def test_logs_are_bounded(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its limit a log begins anew, the one before is kept, and the service goes on writing whole lines to it."""
    limit = 4000
    log = mesh.log_directory / "orchestrator.log"
    monkeypatch.setattr("outboard.local.LOG_BYTES", limit)
    with Client(mesh.address) as client:
        for _ in range(4):
            for _ in range(20):
                list(client.list_jobs(page_size=1))
            deadline = time.monotonic() + 10.0
            while log.stat().st_size > limit:
                assert time.monotonic() < deadline, f"{log.stat().st_size} bytes"
                time.sleep(0.05)
        list(client.list_jobs(page_size=1))
    assert log.with_suffix(".1.log").stat().st_size > limit
    text = log.read_text()
    assert "\0" not in text, "the service went on at its old place"
    assert json.loads(text.splitlines()[-1])["method"].endswith("/ListJobs")


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """When the serving process is killed with SIGKILL, all of its services end by themselves."""
    script = (
        "import sys, time; from pathlib import Path; from outboard.local import local_mesh\n"
        "with local_mesh(Path(sys.argv[1])): time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=_ROOT)
    deadline = time.monotonic() + 60.0
    while len(_children(str(tmp_path))) < 6:
        assert time.monotonic() < deadline, "the services did not start"
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20.0
    while left := _children(str(tmp_path)):
        assert time.monotonic() < deadline, f"{len(left)} services outlived their parent"
        time.sleep(0.1)
