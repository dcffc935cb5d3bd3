"""The same song gives the same bytes, wherever and whenever it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode
from outboard.client import Client, failure
from outboard.local import local_mesh
from outboard.v1 import job_service_pb2 as v1

SECONDS = 8.0
SEED = 24  # of no other test, so that no store knows the song


def _done(client: Client, song: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Digests of all artifacts but the report, and the report without the facts of its run."""
    upload = client.upload(song)
    job = client.wait(client.create_job(v1.Job(song=v1.SongInput(upload=upload.name, file_name=song.name))).name)
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert not any(stage.reused for stage in job.progress), "the store knows this song already"
    artifacts = {artifact.name.partition("/artifacts/")[2]: artifact for artifact in job.artifacts}
    report = json.loads(client.read(artifacts.pop("report.json")))
    report.pop("run")
    return {name: artifact.sha256 for name, artifact in artifacts.items()}, report


@pytest.mark.timeout(300)  # a mesh to start, and two songs
def test_two_meshes_give_the_same_bytes(mesh_client: Client, tmp_path: Path) -> None:
    """On two stores master, mix, every stem and the preview are the same bytes, and the reports are equal."""
    demo = synthesise(SEED, SECONDS)
    song = tmp_path / "song.wav"
    encode(song, [demo.song], demo.sample_rate_hertz, FileSpec("wav", "24"))
    with local_mesh(tmp_path / "store") as mesh, Client(mesh.address) as other:
        digests, report = _done(other, song)
    again_digests, again_report = _done(mesh_client, song)
    assert {"master.wav", "mix.wav", "stems/vocals.wav", "stems/other.wav", "preview_ab.mp3"} <= set(digests)
    assert digests == again_digests
    assert report == again_report
