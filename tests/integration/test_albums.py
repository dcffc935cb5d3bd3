"""Albums: one job, a master per song that knows of the others, files under their titles, one report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode
from outboard.client import Client, failure
from outboard.errors import InvalidInput
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import master_service_pb2
from services.orchestrator.albums import file_name, titles
from tests.integration.orchestrator_bench import Bench

Job = messages.Job
in_module = pytest.mark.asyncio(loop_scope="module")


async def album_of(mesh: Bench, seeds: Iterable[int]) -> messages.AlbumInput:
    """An album of noises."""
    songs = [
        messages.SongInput(upload=(await mesh.upload(seed)).name, file_name=f"Song no. {seed}?.wav") for seed in seeds
    ]
    return messages.AlbumInput(songs=songs)


def names_of(job: Job) -> set[str]:
    """Artifacts by name."""
    return {artifact.name.partition("/artifacts/")[2] for artifact in job.artifacts}


@in_module
async def test_every_song_is_mastered_with_the_others_in_mind(mesh: Bench) -> None:
    """Each song goes through the master once, with the measurements of all; files and report are under its title."""
    created = await mesh.client.create_job(Job(album=await album_of(mesh, (71, 72, 73))))
    job = await mesh.client.wait(created.name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.calls["master"] == 3
    assert "separate" not in mesh.behaviour.calls
    assert mesh.behaviour.master_config is not None
    assert len(mesh.behaviour.master_config.album) == 3
    songs = ["01-Song-no.-71", "02-Song-no.-72", "03-Song-no.-73"]
    assert names_of(job) == {f"{name}.wav" for name in songs} | {"report.json", "report.html"}
    assert [song.title for song in job.report.album] == songs
    assert job.report.album[0].file_name == "Song no. 71?.wav"
    assert [(entry.stage, entry.fraction) for entry in job.progress] == [(messages.STAGE_MASTER, 1.0)]


@in_module
async def test_another_album_masters_a_song_anew(mesh: Bench) -> None:
    """An album with a song more is mastered anew, as the measurements differ; the same again comes from the store."""
    calls = mesh.behaviour.calls
    for seeds, expected in (((81, 82), 2), ((81, 82), 0), ((81, 82, 83), 3)):
        before = calls.get("master", 0)
        job = await mesh.client.create_job(Job(album=await album_of(mesh, seeds)))
        assert (await mesh.client.wait(job.name)).state == Job.STATE_SUCCEEDED
        assert calls.get("master", 0) - before == expected, seeds


@in_module
@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"stages": [messages.STAGE_MIX, messages.STAGE_MASTER]}, "INVALID_ARGUMENT", "job.stages"),
        (
            {"mastering": master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)},
            "OPTIONS_CONFLICT",
            "job.mastering.intent",
        ),
    ],
)
async def test_what_contradicts_an_album_is_refused(
    mesh: Bench, fields: dict[str, object], reason: str, field: str
) -> None:
    """Stages before the master, and a reference, at once and by name of the field."""
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(Job(album=await album_of(mesh, (91,)), **fields))  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert field in [violation.field for violation in caught.value.violations]


@in_module
@pytest.mark.parametrize("count", [0, 51])
async def test_albums_have_songs_but_not_too_many(mesh: Bench, count: int) -> None:
    """None and more than fifty are refused before any upload is looked up."""
    album = messages.AlbumInput(songs=[messages.SongInput(upload="uploads/none")] * count)
    with pytest.raises(InvalidInput, match="1 to 50 songs"):
        await mesh.client.create_job(Job(album=album))


def test_titles_are_safe_and_in_order() -> None:
    """Paths, control characters and dots at the ends leave no trace; equal names differ by their place."""
    hostile = ("../../etc/passwd", "a\\b\\..\x00c.wav", "", "ünïcode name.flac", "ünïcode name.mp3", "x" * 500 + ".wav")
    made = titles([messages.SongInput(file_name=name) for name in hostile])
    assert made[0] == "01-passwd"
    assert made[2] == "03"
    assert made[3:5] == ["04-ünïcode-name", "05-ünïcode-name"]
    assert not any(set(title) & set("/\\\0 ") or title.endswith(".") for title in made)
    assert max(map(len, made)) <= 63
    assert file_name("01-a", "master.flac") == "01-a.flac"
    assert file_name("01-a", "club.wav") == "01-a-club.wav"


@pytest.mark.parametrize("target_lufs", [-14.0, -5.0])
def test_a_real_album_keeps_its_loudness(target_lufs: float, mesh_client: Client, tmp_path: Path) -> None:
    """Through the whole mesh: the loudest song ends at the target, or where guard-rails stop it; the other stays as far
    below it as it came.
    """
    songs = []
    for name, seed, gain in (("loud", 51, 0.8), ("soft", 52, 0.3)):
        path = tmp_path / f"{name}.wav"
        encode(path, [gain * synthesise(seed, 6.0).clean], 48_000, FileSpec("wav", "24"))
        songs.append(messages.SongInput(upload=mesh_client.upload(path).name, file_name=path.name))
    settings = master_service_pb2.MasterSettings(target_lufs=target_lufs)
    album = messages.AlbumInput(songs=songs)
    job = mesh_client.create_job(Job(display_name="Album", album=album, mastering=settings))
    for state in mesh_client.watch(job.name):
        job = state
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    reports = [song.mastering for song in job.report.album]
    before = [report.before.integrated_lufs for report in reports]
    after = [report.deliverables[0].integrated_lufs for report in reports]
    if target_lufs == -14.0:
        assert after[0] == pytest.approx(-14.0, abs=0.1), after
    else:
        assert reports[0].target_missed_reason
    assert (after[1] - after[0]) - (before[1] - before[0]) == pytest.approx(0.0, abs=0.2), f"{before} -> {after}"
    assert names_of(job) == {"01-loud.wav", "02-soft.wav", "report.json", "report.html"}
    page = next(artifact for artifact in job.artifacts if artifact.name.endswith("report.html"))
    assert b"01-loud" in mesh_client.read(page)
