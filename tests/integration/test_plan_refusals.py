"""Plans and presets from outside, over a real socket: refused by their fields before any audio is sent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outboard.errors import InvalidInput
from outboard.rpc.channel import outboard_errors
from outboard.v1 import analysis_pb2, master_service_pb2, mixer_service_pb2, processor_pb2
from tests.integration.stage_bench import RATE, Stage, make_song, serving

_PEAK, _NOTCH = processor_pb2.FILTER_SHAPE_PEAK, processor_pb2.FILTER_SHAPE_NOTCH


def _mix_requests(stage: Stage, edit: Callable[[mixer_service_pb2.MixPlan], object]) -> list[Any]:
    requests = stage.requests(make_song(0.5))
    plan = requests[0].config.plan
    for name in stage.stems:
        plan.strips.add(stem=name, role="ROLE_OTHER")
    edit(plan)
    return requests


def _equalizer(shape: int, q: float) -> processor_pb2.Processor:
    band = processor_pb2.FilterBand(shape=shape, frequency_hertz=1_000.0, q=q)  # type: ignore[arg-type]
    return processor_pb2.Processor(label="eq", equalizer=processor_pb2.Equalizer(bands=[band]))


def _two_buses(plan: mixer_service_pb2.MixPlan) -> None:
    plan.buses.add(name="drums")
    plan.buses.add(name="drums")
    plan.strips[0].bus = "drums"


_COMPRESSOR = processor_pb2.Processor(label="glue", compressor=processor_pb2.Compressor())
_KEYED = processor_pb2.Compressor(threshold_db=-20.0, ratio=2.0, sidechain="kick")
_BAD_PLANS: dict[str, tuple[Callable[[mixer_service_pb2.MixPlan], object], str]] = {
    "pan": (lambda plan: setattr(plan.strips[0], "pan", 5.0), "config.plan.strips[0].pan"),
    "NaN": (lambda plan: setattr(plan.strips[1], "gain_db", math.nan), "config.plan.strips[1].gain_db"),
    "4000 dB": (lambda plan: setattr(plan.strips[1], "gain_db", 4_000.0), "config.plan.strips[1].gain_db"),
    "q of 0": (
        lambda plan: plan.strips[0].chain.append(_equalizer(_PEAK, 0.0)),
        "config.plan.strips[0].chain[0].equalizer.bands[0].q",
    ),
    "zeroed compressor": (
        lambda plan: plan.strips[0].chain.append(_COMPRESSOR),
        "config.plan.strips[0].chain[0].compressor",
    ),
    "unknown sidechain": (
        lambda plan: plan.strips[0].chain.append(processor_pb2.Processor(label="duck", compressor=_KEYED)),
        "config.plan.strips[0].chain[0].compressor.sidechain",
    ),
    "two buses of one name": (_two_buses, "config.plan.buses"),
    "another's stems": (lambda plan: setattr(plan.strips[0], "stem", "kazoo"), "config.plan.strips[0].stem"),
}


@pytest.mark.parametrize("name", _BAD_PLANS)
async def test_a_mix_plan_is_refused_before_its_stems_are_sent(mixer: Stage, name: str) -> None:
    """INVALID_ARGUMENT with the field, in answer to the config alone."""
    edit, field = _BAD_PLANS[name]
    call = mixer.method(timeout=10)
    await call.write(_mix_requests(mixer, edit)[0])
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await call.read()
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert [violation.field for violation in caught.value.violations] == [field]
    await mixer.assert_idle()


async def test_a_notch_of_the_contract_is_rendered(mixer: Stage) -> None:
    """A plan with every filter shape of the contract mixes to finite sound."""
    parts, _ = await mixer.render(
        _mix_requests(mixer, lambda plan: plan.strips[0].chain.append(_equalizer(_NOTCH, 4.0)))
    )
    sound = np.frombuffer(parts[""], "<f4")
    assert np.all(np.isfinite(sound))
    assert sound.any()


async def test_a_master_plan_is_refused_before_the_mix_is_sent(master: Stage) -> None:
    """INVALID_ARGUMENT with every wrong field, in answer to the config alone."""
    request = master.requests(make_song(0.5))[0]
    request.config.plan.CopyFrom(
        master_service_pb2.MasterPlan(intent="MASTER_INTENT_LOUD", engine="chain", ceiling_dbtp=3.0, drive_db=900.0)
    )
    call = master.method(timeout=10)
    await call.write(request)
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await call.read()
    assert {violation.field for violation in caught.value.violations} == {
        "config.plan.ceiling_dbtp",
        "config.plan.drive_db",
    }
    await master.assert_idle()


@pytest.mark.parametrize(
    ("key", "value"),
    [("master.bogus", 1.0), ("master.correction", math.nan), ("master.equalizer_limit_db", 99.0)],
)
async def test_presets_of_a_master_are_checked(master: Stage, key: str, value: float) -> None:
    """PRESET_INVALID with the key, as the mixer has it; from PlanMaster and before the mix is sent."""
    analysis = analysis_pb2.Analysis(frames=RATE, sample_rate_hertz=RATE, channels=2)
    preset = mixer_service_pb2.Preset(values={key: value})
    with pytest.raises(InvalidInput) as caught, outboard_errors():
        await master.stub.PlanMaster(master_service_pb2.PlanMasterRequest(analysis=analysis, preset=preset))
    assert (caught.value.reason, caught.value.violations[0].field) == ("PRESET_INVALID", key)
    request = master.requests(make_song(0.5))[0]
    request.config.preset.CopyFrom(preset)
    call = master.method(timeout=10)
    await call.write(request)
    with pytest.raises(InvalidInput) as refused, outboard_errors():
        await call.read()
    assert refused.value.reason == "PRESET_INVALID"


async def test_idle_clients_do_not_stop_the_separator(tmp_path: Path) -> None:
    """Two render slots, two clients that sent their config and a second of audio: a third is served meanwhile."""
    async with serving("separator", tmp_path) as stage, contextlib.AsyncExitStack() as idle:
        for _ in range(2):
            call = stage.method(timeout=60)
            idle.callback(call.cancel)
            for request in stage.requests(make_song(3.0))[:7]:
                await call.write(request)
        song = make_song(1.0)
        parts, _ = await stage.render(stage.requests(song), timeout_seconds=20)
        total = sum(np.frombuffer(part, "<f4").reshape(-1, 2).T.astype(np.float64) for part in parts.values())
        np.testing.assert_allclose(total, song, atol=10 ** (-90 / 20))
