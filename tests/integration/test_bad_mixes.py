"""What nobody should send to the console, and somebody will: each with its own answer."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_asyncio

from outboard.cli import main
from outboard.cli.pipeline import job_with_preset
from outboard.client import Client
from outboard.errors import InvalidInput
from outboard.rpc.streaming import chunk_messages
from outboard.v1 import audio_pb2, mixer_service_pb2, processor_pb2
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import noise_file
from tests.integration.stage_bench import Stage, make_song, serving
from tests.plugins import copy_bundle, crashing_bundle, old_bundle

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

Job = messages.Job


def mix_job(client: Client, names: list[str], **fields: Any) -> Job:
    """A job on stems of these names, all of one short upload."""
    upload = client.upload(noise_file(91, 0.5)).name
    stems = [messages.StemInput(name=name, upload=upload) for name in names]
    return Job(stems=messages.StemsInput(stems=stems), stages=[messages.STAGE_MIX], **fields)


# --- jobs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "field", "told"),
    [
        ([f"s{index}" for index in range(13)], "job.stems.stems", "1 to 12 stems, not 13"),
        ([], "job.input", "a job needs a song, stems or an album"),
        (["kick", "Kick"], "job.stems.stems[1].name", "two stems are called 'Kick'"),
        (["../kick"], "job.stems.stems[0].name", "characters that a file name may have"),
    ],
    ids=["thirteen", "none", "twice", "path"],
)
def test_stems_that_cannot_be_mixed(mesh_client: Client, names: list[str], field: str, told: str) -> None:
    """Refused when the job is created, with the field and what is allowed."""
    job = mix_job(mesh_client, names)
    if not names:
        job.ClearField("stems")
    with pytest.raises(InvalidInput) as caught:
        mesh_client.create_job(job)
    assert caught.value.violations[0].field == field
    assert told in caught.value.violations[0].description


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"preset": "popp"}, "job.preset", "did you mean 'pop'?"),
        ({"values": {"mix.mud_cut": 1.0}}, "job.custom_preset.values[mix.mud_cut]", "did you mean 'mix.mud_cut_db'"),
        ({"values": {"mix.mud_cut_db": 9.0}}, "job.custom_preset.values[mix.mud_cut_db]", "is 9, must be 0 to 3 dB"),
        ({"mix": mixer_service_pb2.MixSettings(width_cap=3.0)}, "job.mix.width_cap", "is 3, must be 0 to 1.4"),
        ({"mix": mixer_service_pb2.MixSettings(bypass=["compresor"])}, "job.mix.bypass", "did you mean 'compressor'"),
        ({"mix": mixer_service_pb2.MixSettings(engine="consol")}, "job.mix.engine", "console"),
    ],
    ids=["preset", "key", "range", "setting", "label", "engine"],
)  # fmt: skip
def test_presets_and_settings_that_there_are_not(
    mesh_client: Client, fields: dict[str, Any], field: str, told: str
) -> None:
    """The nearest name, or the range, with the field; a check without uploads says the same."""
    if "values" in fields:
        fields = {"custom_preset": mixer_service_pb2.Preset(values=fields["values"])}
    job = mix_job(mesh_client, ["a"], **fields)
    bare = Job()
    bare.CopyFrom(job)
    bare.stems.stems[0].ClearField("upload")
    for ask in (lambda: mesh_client.create_job(job), lambda: mesh_client.check_job(bare)):
        with pytest.raises(InvalidInput) as caught:
            ask()
        assert caught.value.violations[0].field == field
        assert told in caught.value.violations[0].description


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("mix", "a.wav", "--intensity", "200"), "intensity is 200, must be 0 to 100"),
        (("mix", "a.wav", "--width-cap", "3"), "width_cap is 3, must be 0 to 1.4"),
        (("mix", "a.wav", "--peak-target-dbfs", "1"), "peak_target_dbfs is 1, must be -40 to 0"),
        (("mix", "a.wav", "--bypass", "compresor"), "did you mean 'compressor'"),
        (("mix", "a.wav", "--bypass-all", "--intensity", "50"), "intensity would do nothing"),
        (("mix", "a.wav", "--preset", "popp"), "did you mean 'pop'?"),
        (("master", "a.wav", "--intensity", "200"), "is outside of 0 to 100"),
        (("master", "a.wav", "--engine", "matchring"), "matchering"),
        (("separate", "a.wav", "--engine", "spectrl"), "spectral"),
    ],
    ids=lambda given: "-".join(given[:1] + given[2:]).replace("--", "") if isinstance(given, tuple) else "",
)
def test_settings_are_refused_before_anything_is_uploaded(
    served_mesh: ServedMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    """The command ends with the server's words, exit code 2, and no file has been sent."""

    def upload(self: Client, path: Path) -> None:
        raise AssertionError(f"{path.name} was uploaded")

    (tmp_path / "a.wav").write_bytes(noise_file(92, 0.5))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Client, "upload", upload)
    monkeypatch.setattr(sys, "argv", ["outboard", *arguments, "--server", served_mesh.address])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert told in " ".join(said.split())


def test_a_job_that_is_only_checked_is_not_there(mesh_client: Client) -> None:
    """The answer has the preset's numbers and the stages, no name; no job is in the list."""
    before = {job.name for job in mesh_client.list_jobs()}
    stems = messages.StemsInput(stems=[messages.StemInput(name="a")])
    checked = mesh_client.check_job(Job(stems=stems, stages=[messages.STAGE_MIX], preset="pop"))
    assert (checked.name, checked.state) == ("", Job.STATE_UNSPECIFIED)
    assert checked.resolved_preset.values["mix.working_level_lufs"] < 0.0
    assert {job.name for job in mesh_client.list_jobs()} == before


def test_a_preset_file_that_extends_itself(tmp_path: Path) -> None:
    """The command line reads the file: the circle is told before there is a job."""
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{other}.toml"\n')
    with pytest.raises(InvalidInput, match="extends runs in a circle: a -> b -> c -> a") as caught:
        job_with_preset(str(tmp_path / "a.toml"))
    assert caught.value.reason == "PRESET_INVALID"


# --- sound ----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def mixer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("OUTBOARD_PLUGIN_FOLDERS", str(tmp_path / "plugins"))
    monkeypatch.setenv("OUTBOARD_PLUGIN_WARM_PROCESSES", "0")
    async with serving("mixer", tmp_path / "spool") as stage:
        yield stage


async def rendered(mixer: Stage, stems: dict[str, np.ndarray], rate: int) -> tuple[np.ndarray, Any]:
    """Stems of any lengths through the service."""
    longest = max(stem.shape[1] for stem in stems.values())
    form = audio_pb2.AudioFormat(sample_rate_hertz=rate, channels=2, frames=longest)
    config = mixer_service_pb2.MixConfig(format=form)
    for name, stem in stems.items():
        form = audio_pb2.AudioFormat(sample_rate_hertz=rate, channels=2, frames=stem.shape[1])
        config.stems.add(name=name, format=form)
    chunks = [
        mixer.request(chunk=chunk)
        for name, stem in stems.items()
        for start in range(0, stem.shape[1], 65_536)
        for chunk in chunk_messages(stem[:, start : start + 65_536], start, name)
    ]
    parts, report = await mixer.render([mixer.request(config=config), *chunks])
    return np.frombuffer(parts[""], "<f4").reshape(-1, 2).T, report


@pytest.mark.asyncio
async def test_lengths_that_differ_by_minutes(mixer: Stage) -> None:
    """The mix is as long as the longest stem; where all have ended, only the tails of effects ring."""
    rate = 8_000
    random = np.random.default_rng(3)
    long = np.zeros((2, 130 * rate), np.float32)
    long[:, : 2 * rate] = 0.05 * random.standard_normal((2, 2 * rate))
    short = (0.05 * random.standard_normal((2, rate))).astype(np.float32)
    sound, report = await rendered(mixer, {"long": long, "short": short}, rate)
    assert sound.shape == long.shape
    assert report.frames == long.shape[1]
    assert np.std(sound[:, :rate]) > 1e-3
    assert np.max(np.abs(sound[:, 20 * rate :])) < 1e-6, "only the tail of a reverb may be left"


@pytest.mark.asyncio
async def test_stems_that_are_all_silent(mixer: Stage) -> None:
    """Silence stays silence; what cannot be measured of it is unset, and nothing is warned about."""
    stems = {name: np.zeros((2, 96_000), np.float32) for name in ("a", "b", "c")}
    sound, report = await rendered(mixer, stems, 48_000)
    assert not sound.any()
    assert not report.HasField("sample_peak_dbfs")
    assert not report.HasField("correlation")
    assert [strip.HasField("integrated_before_lufs") for strip in report.strips] == [False] * 3
    assert all("silent" in note for note in report.plan.notes[:3])


# --- plugins --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["missing", "32-bit", "crashing", "mono-only"])
async def test_plugins_that_are_no_use_each_have_their_reason(mixer: Stage, tmp_path: Path, what: str) -> None:
    """The mix comes in any case; a mono plugin simply runs twice. (One that hangs: see test_plugin_jobs.)"""
    folder = tmp_path / "plugins"
    folder.mkdir()
    if what == "32-bit":
        old_bundle(folder, "Mine")
    elif what == "crashing":
        crashing_bundle(folder, "Mine")
    elif what == "mono-only":
        copy_bundle("ZamComp", folder, "Mine")
    requests = mixer.requests(make_song(0.5))
    requests[0].config.preset.plugins["mix.insert"].CopyFrom(processor_pb2.Plugin(name="Mine"))
    _, report = await mixer.render(requests)
    reasons = {
        "missing": "PLUGIN_MISSING", "32-bit": "PLUGIN_WRONG_MACHINE", "crashing": "PLUGIN_CRASHED", "mono-only": "",
    }  # fmt: skip
    assert [run.reason for run in report.plugins] == [reasons[what]]
    told = [warning.code for warning in report.warnings if warning.code.startswith("PLUGIN_")]
    assert told == ([reasons[what]] if reasons[what] else [])
    ran = report.buses[-1].processors[-1].ran
    assert ran.startswith("Mine 4." if what == "mono-only" else "nothing in place of Mine")
