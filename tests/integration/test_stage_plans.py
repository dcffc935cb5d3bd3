"""Plans of the real mixer and master over a socket: decided without rendering, through JSON, and rendered again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from outboard.client import MasterClient, MixerClient, Stem
from outboard.errors import InvalidInput
from outboard.rpc.channel import outboard_errors
from outboard.rpc.streaming import chunk_messages
from outboard.v1 import master_service_pb2, mixer_service_pb2
from tests.integration.stage_bench import RATE, Stage, make_song

_REFERENCE = master_service_pb2.MASTER_INTENT_REFERENCE


def _through_json(plan: Message) -> Any:
    """A plan as a person gets it and gives it back."""
    text = json_format.MessageToJson(plan, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json_format.Parse(text, type(plan)())


async def _decided(stage: Stage, requests: list[Any]) -> Any:
    """The report of a call that decides and renders nothing."""
    asked = stage.request()
    asked.CopyFrom(requests[0])
    asked.config.plan_only = True
    parts, report = await stage.render([asked, *requests[1:]])
    assert not parts, "a plan alone was asked for"
    return report


async def test_a_mix_plan_renders_what_the_mixer_would_have(mixer: Stage) -> None:
    """The plan alone equals the one that is rendered; an unedited one gives the same bytes, an edited one does not."""
    requests = mixer.requests(make_song(4.0))
    whole, told = await mixer.render(requests)
    report = await _decided(mixer, requests)
    assert report.plan == told.plan
    assert (report.engine.name, report.frames) == ("console", 4 * RATE)
    again = mixer.requests(make_song(4.0))
    again[0].config.plan.CopyFrom(_through_json(report.plan))
    assert (await mixer.render(again))[0] == whole
    again[0].config.plan.strips[0].gain_db -= 6.0
    assert (await mixer.render(again))[0] != whole


@pytest.mark.parametrize("intent", ["MASTER_INTENT_STREAMING", "MASTER_INTENT_LOUD"])
async def test_a_master_plan_renders_what_the_master_would_have(master: Stage, intent: str) -> None:
    """The plan alone equals the one that is rendered, and an unedited one gives the same files."""
    requests = master.requests(make_song(4.0))
    requests[0].config.settings.intent = intent
    whole, told = await master.render(requests)
    report = await _decided(master, requests)
    assert report.plan == told.plan
    assert report.before == told.before
    assert list(report.decisions) == list(report.plan.notes)
    again = master.requests(make_song(4.0))
    again[0].config.ClearField("settings")
    again[0].config.plan.CopyFrom(_through_json(report.plan))
    assert (await master.render(again))[0] == whole


async def test_a_match_is_rendered_again_without_its_reference(master: Stage) -> None:
    """The plan of a match holds all its numbers: the same files come of it where no reference is sent."""
    song, other = make_song(6.0), 0.5 * make_song(7.0, seed=5)
    requests = master.requests(song)
    requests[0].config.settings.intent = _REFERENCE
    reference = requests[0].config.references.add(name="hit")
    reference.format.sample_rate_hertz, reference.format.channels, reference.format.frames = RATE, 2, other.shape[1]
    requests += [master.request(chunk=chunk) for chunk in chunk_messages(other.astype(np.float32), stem="hit")]
    whole, told = await master.render(requests)
    report = await _decided(master, requests)
    assert report.plan == told.plan
    assert report.plan.match.bands
    again = master.requests(song)
    again[0].config.ClearField("settings")
    again[0].config.plan.CopyFrom(_through_json(report.plan))
    assert (await master.render(again))[0] == whole


async def test_typed_clients_plan_and_render(mixer: Stage, master: Stage) -> None:
    """`plan` of a stage's client gives what its rendering call takes."""
    song = make_song(3.0)
    async with MixerClient(mixer.address) as client:
        stems = {"a": Stem(song), "b": Stem(0.3 * song[:, ::-1])}
        mix_plan = await client.plan(stems)
        audio, _ = await client.mix(stems)
        assert np.array_equal((await client.mix(stems, plan=mix_plan))[0], audio)
    async with MasterClient(master.address) as mastering:
        plan = await mastering.plan(song, RATE)
        assert (await mastering.master(song, RATE, plan=plan))[0] == (await mastering.master(song, RATE))[0]


async def test_a_plan_is_checked_without_audio(mixer: Stage, master: Stage) -> None:
    """PlanMix and PlanMaster return a sound plan as it is and refuse another by its fields; no audio is needed."""
    law = mixer_service_pb2.PAN_LAW_BALANCE
    strips = [mixer_service_pb2.Strip(stem=name, role="ROLE_OTHER", pan_law=law) for name in mixer.stems]
    mix = mixer.config(make_song(0.5), "")
    mix.plan.CopyFrom(mixer_service_pb2.MixPlan(strips=strips))
    answer = await mixer.stub.PlanMix(mixer_service_pb2.PlanMixRequest(config=mix))
    assert answer.plan == mix.plan
    mix.plan.strips[0].stem = "mon"
    with pytest.raises(InvalidInput, match="no stem 'mon'; did you mean 'mono'") as caught, outboard_errors():
        await mixer.stub.PlanMix(mixer_service_pb2.PlanMixRequest(config=mix))
    assert [violation.field for violation in caught.value.violations] == ["config.plan.strips[0].stem"]
    plan = (await _decided(master, master.requests(make_song(1.0)))).plan
    request = master_service_pb2.PlanMasterRequest(plan=plan)
    assert (await master.stub.PlanMaster(request)).plan == plan
    request.plan.limiter.release_ms = -1.0
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await master.stub.PlanMaster(request)
    assert [violation.field for violation in caught.value.violations] == ["plan.limiter.release_ms"]


@pytest.mark.parametrize("settings", [{"engine": "passthrough"}, {"bypass_all": True}])
async def test_the_plain_sum_takes_no_mix_plan(mixer: Stage, settings: dict[str, Any]) -> None:
    """A plan and settings that render none contradict each other: OPTIONS_CONFLICT with the field."""
    config = mixer.config(make_song(0.5), "")
    config.plan.CopyFrom(mixer_service_pb2.MixPlan())
    config.settings.CopyFrom(mixer_service_pb2.MixSettings(**settings))
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await mixer.stub.PlanMix(mixer_service_pb2.PlanMixRequest(config=config))
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert caught.value.violations[0].field == f"config.settings.{next(iter(settings))}"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"intent": _REFERENCE, "engine": "chain"}, "engine"),
        ({"intent": _REFERENCE, "engine": "passthrough"}, "engine"),
        ({"intent": "MASTER_INTENT_LOUD", "engine": "match"}, "engine"),
        ({"engine": "chain", "match": master_service_pb2.ReferenceMatch()}, "match"),
        ({"engine": "passthrough", "target_lufs": -14.0}, "engine"),
    ],
)
async def test_a_master_plan_that_contradicts_itself_is_refused(
    master: Stage, fields: dict[str, Any], wrong: str
) -> None:
    """What an engine would not render, or cannot follow, is OPTIONS_CONFLICT with the field."""
    plan = (await _decided(master, master.requests(make_song(1.0)))).plan
    plan.ClearField("target_lufs")
    plan.ClearField("chain")
    plan.MergeFrom(master_service_pb2.MasterPlan(**fields))
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await master.stub.PlanMaster(master_service_pb2.PlanMasterRequest(plan=plan))
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert [violation.field for violation in caught.value.violations] == [f"plan.{wrong}"]
