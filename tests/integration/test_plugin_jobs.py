"""Plugins through the services: a preset of a job names them, the mixer runs them, results are kept apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from outboard.client import Client
from outboard.errors import InvalidInput
from outboard.rpc.channel import outboard_errors
from outboard.v1 import audio_pb2, mixer_service_pb2, processor_pb2
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import Bench, bench, noise_file
from tests.integration.stage_bench import RATE, Stage, make_song, serving
from tests.plugins import zam_folder

Job = messages.Job
Plugin = processor_pb2.Plugin


def preset(slot: str, name: str, **parameters: float) -> mixer_service_pb2.Preset:
    return mixer_service_pb2.Preset(name="mine", plugins={slot: Plugin(name=name, parameters=parameters)})


# --- the whole mesh -------------------------------------------------------------------------------------------------


def mixed(client: Client, own: mixer_service_pb2.Preset) -> Job:
    """A job that mixes two stems of noise with a preset of its own."""
    stems = [
        messages.StemInput(name=name, upload=client.upload(noise_file(seed, 2.0)).name, role="ROLE_OTHER")
        for seed, name in ((71, "a"), (72, "b"))
    ]
    job = client.create_job(Job(stems=messages.StemsInput(stems=stems), stages=[messages.STAGE_MIX], custom_preset=own))
    return client.wait(job.name)


def test_a_job_with_plugins_and_one_without_them_are_kept_apart(mesh_client: Client) -> None:
    """The plugin runs and is named with its version; a machine without a plugin renders too, and says what stood in;
    neither result serves the other's request.
    """
    zam_folder()
    with_plugin = mixed(mesh_client, preset("mix.insert", "ZamCompX2", threshold_db=-40.0, ratio=10.0))
    missing = mixed(mesh_client, preset("mix.insert", "TDR Nova", threshold_db=-40.0, ratio=10.0))
    assert (with_plugin.state, missing.state) == (Job.STATE_SUCCEEDED, Job.STATE_SUCCEEDED)
    assert with_plugin.report.mix.buses[-1].processors[-1].ran.startswith("ZamCompX2 ")
    assert with_plugin.report.mix.plan.master_chain[-1].plugin.parameters["ratio"] == 10.0
    assert [run.reason for run in with_plugin.report.mix.plugins] == [""]
    assert [run.reason for run in missing.report.mix.plugins] == ["PLUGIN_MISSING"]
    assert "PLUGIN_MISSING" in [warning.code for warning in missing.report.warnings]
    assert missing.report.mix.buses[-1].processors[-1].ran == "nothing in place of TDR Nova"
    digests = [
        next(artifact.sha256 for artifact in job.artifacts if artifact.name.endswith("/mix.wav"))
        for job in (with_plugin, missing)
    ]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("own", "field", "told"),
    [
        (preset("mix.insert", "ZamCompX2", treshold_db=-9.0), "parameters[treshold_db]", "did you mean 'threshold_db'"),
        (preset("mix.insert", "ZamCompX2", threshold_db=9.0), "parameters[threshold_db]", "must be -80 to 0 dB"),
        (preset("mix.inserts", "ZamCompX2"), "plugins[mix.inserts]", "did you mean 'insert'"),
        (preset("mix.insert", "../../tmp/evil"), "plugins.mix.insert.name", "a path is no name"),
        (preset("mix.insert", "/usr/lib/vst3/ZamCompX2.vst3"), "plugins.mix.insert.name", "a path is no name"),
    ],
)
def test_wrong_plugins_are_refused_when_the_job_is_created(
    mesh_client: Client, own: mixer_service_pb2.Preset, field: str, told: str
) -> None:
    """Before anything is computed, with the slot and what is allowed."""
    zam_folder()
    with pytest.raises(InvalidInput, match=told) as raised:
        mixed(mesh_client, own)
    assert raised.value.reason == "PRESET_INVALID"
    assert raised.value.violations[0].field.endswith(field)


# --- the mixer alone ------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def mixer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    zam_folder()
    monkeypatch.setenv("OUTBOARD_PLUGIN_LOAD_SECONDS", "2")
    monkeypatch.setenv("OUTBOARD_PLUGIN_WARM_PROCESSES", "0")
    async with serving("mixer", tmp_path) as stage:
        yield stage


def requests(stage: Stage, song: np.ndarray, own: mixer_service_pb2.Preset) -> list[Any]:
    made = stage.requests(song)
    made[0].config.preset.CopyFrom(own)
    return made


@pytest.mark.asyncio
async def test_a_plugin_that_hangs_costs_its_limit_and_not_the_service(mixer: Stage) -> None:
    """ZamVerb never loads: the mix comes with a warning, and the service takes the next call."""
    song = make_song(1.0)
    _, report = await mixer.render(requests(mixer, song, preset("mix.insert", "ZamVerb")))
    assert [(run.name, run.reason) for run in report.plugins] == [("ZamVerb", "PLUGIN_HUNG")]
    assert "PLUGIN_HUNG" in [warning.code for warning in report.warnings]
    plain, _ = await mixer.render(mixer.requests(song))
    hung, _ = await mixer.render(requests(mixer, song, preset("mix.insert", "ZamVerb")))
    assert plain == hung, "what is left out must change nothing"
    await mixer.assert_idle()


@pytest.mark.asyncio
async def test_bypass_takes_plugins_out(mixer: Stage) -> None:
    """By label, and all of them on a bypassed console."""
    song = make_song(1.0)
    own = preset("mix.insert", "ZamCompX2", threshold_db=-40.0, ratio=10.0)
    pressed, _ = await mixer.render(requests(mixer, song, own))
    plain, _ = await mixer.render(mixer.requests(song))
    bypassed = requests(mixer, song, own)
    bypassed[0].config.settings.bypass.append("insert")
    without, _ = await mixer.render(bypassed)
    assert pressed != plain
    assert without == plain


@pytest.mark.asyncio
async def test_plugins_are_listed_with_their_reasons(mixer: Stage) -> None:
    """By name: usable, missing and hanging ones; an answer has the names of the question."""
    names = ["ZamVerb", "zam comp", "TDR Nova"]
    answer = await mixer.stub.ListPlugins(mixer_service_pb2.ListPluginsRequest(names=names), timeout=60)
    found = {plugin.name: plugin for plugin in answer.plugins}
    assert {name: plugin.reason for name, plugin in found.items()} == {
        "ZamVerb": "PLUGIN_HUNG", "zam comp": "", "TDR Nova": "PLUGIN_MISSING",
    }  # fmt: skip
    assert found["zam comp"].channels == 1
    assert {one.name for one in found["zam comp"].parameters} > {"threshold_db", "ratio"}
    with pytest.raises(InvalidInput, match="at most 64"), outboard_errors():
        await mixer.stub.ListPlugins(mixer_service_pb2.ListPluginsRequest(names=map(str, range(65))), timeout=60)


@pytest.mark.asyncio
async def test_a_plan_with_a_wrong_parameter_is_refused_before_stems_are_sent(mixer: Stage) -> None:
    """The nearest name, with the slot's place in the plan."""
    config = mixer.requests(make_song(0.5))[0].config
    slot = processor_pb2.Processor(label="glue", plugin=Plugin(name="ZamCompX2", parameters={"treshold_db": 0.0}))
    strips = [mixer_service_pb2.Strip(stem="mono", chain=[slot]), mixer_service_pb2.Strip(stem="other")]
    for strip in strips:
        strip.role = audio_pb2.ROLE_OTHER
    config.plan.strips.extend(strips)
    with pytest.raises(InvalidInput, match="did you mean 'threshold_db'") as raised:
        await mixer.render([mixer.request(config=config)])
    assert raised.value.violations[0].field == "config.plan.strips[0].chain[0].plugin.parameters[treshold_db]"
    assert config.format.sample_rate_hertz == RATE


# --- names of results -----------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


@pytest.mark.asyncio
async def test_what_a_stand_in_made_never_serves_a_request_for_the_plugin(mesh: Bench) -> None:
    """A plugin breaks down in the middle of a job: its result is kept under another name, and the next job tries the
    plugin again; what the plugin made then serves.
    """
    fields: dict[str, Any] = {"stages": [messages.STAGE_SEPARATE, messages.STAGE_RESTORE, messages.STAGE_MIX]}
    mesh.behaviour.failing_plugins = {"Nova": "PLUGIN_CRASHED"}
    for fails, mixes in ((True, 1), (False, 2), (False, 2)):
        if not fails:
            mesh.behaviour.failing_plugins = {}
        job = await mesh.job(5, custom_preset=preset("mix.insert", "Nova"), **fields)
        assert (await mesh.client.wait(job.name)).state == Job.STATE_SUCCEEDED
        assert mesh.behaviour.calls["mix"] == mixes
