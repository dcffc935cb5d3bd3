"""Plugins on the console: what runs, what stands in, and what a fault in the middle of a mix costs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from outboard.audio.plugins.host import PluginHost, PluginLimits
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.processors import Compressor, Plugin, Processor, StereoWidth
from outboard.errors import InvalidInput
from outboard.testing import drained
from services.mixer.check import MOST_PLUGINS, check_plan, check_plan_plugins
from services.mixer.console import Bus, MixPlan, MixReport, Strip
from services.mixer.mix import mix
from tests.plugins import zam_folder

RATE = 48_000
PRESSED = {"threshold_db": -40.0, "ratio": 10.0}
STAND_IN = Processor("compressor", Compressor(-24.0, 2.0))


def _host() -> PluginHost:
    return PluginHost((zam_folder(),), PluginLimits(load_seconds=5.0, block_seconds=1.0, warm_processes=0))


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    """For all tests whose plugins do as they should: looking one up costs a process and the plugin's own start."""
    with contextlib.closing(_host()) as made:
        yield made


@pytest.fixture
def own_host() -> Iterator[PluginHost]:
    """For tests after which the host remembers a fault."""
    with contextlib.closing(_host()) as made:
        yield made


def stems(frames: int = 60_000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: (0.1 * random.standard_normal((2, frames))).astype(np.float32) for name in ("a", "b")}


def plan(plugin: Plugin) -> MixPlan:
    """The plugin on a strip, the other strip beside it, and a bus."""
    slot = Processor("compressor", plugin)
    return MixPlan((Strip("a", "other", chain=(slot,), bus="music"), Strip("b", "other")), (Bus("music"),))


def native() -> MixPlan:
    """The same with the stand-in."""
    return MixPlan((Strip("a", "other", chain=(STAND_IN,), bus="music"), Strip("b", "other")), (Bus("music"),))


def rendered(
    asked: MixPlan, rack: PluginRack | None, told: Callable[[float], None] | None = None
) -> tuple[np.ndarray, MixReport]:
    blocks, report = drained(mix(stems(), RATE, asked, told, plugins=rack))
    return np.concatenate(blocks, axis=1), report


class Saboteur:
    """Sends a signal to the plugin's process at the second block of a render, so many times."""

    def __init__(self, rack: PluginRack, number: signal.Signals, times: int) -> None:
        self._rack, self._number, self._left = rack, number, times
        self._seen: set[int] = set()

    def __call__(self, fraction: float) -> None:
        for process_id in self._rack.process_ids():
            if process_id not in self._seen and self._left:
                self._seen.add(process_id)
                self._left -= 1
                os.kill(process_id, self._number)


def test_a_plugin_on_a_strip_is_heard_and_named(host: PluginHost) -> None:
    """Report and plan tell which plugin ran, in which version; the mix stays aligned with its stems."""
    sound, report = rendered(plan(Plugin("ZamCompX2", PRESSED, stand_in=STAND_IN)), PluginRack(host))
    (processor,) = report.strips[0].processors
    assert processor.ran == f"ZamCompX2 {host.find('ZamCompX2').version}"
    assert [(run.name, run.reason, len(run.digest)) for run in report.plugins] == [("ZamCompX2", "", 64)]
    assert report.warnings == ()
    parts = stems()
    assert sound.shape == parts["a"].shape
    late = np.correlate(sound[0, 20_000:30_000], parts["b"][0, 19_000:31_000], "valid")
    assert int(np.argmax(late)) == 1_000, "the strips do not meet"


def test_two_mixes_with_plugins_are_identical(host: PluginHost) -> None:
    """Bit for bit: each mix has its plugins fresh, whatever ran in warm processes before."""
    asked = plan(Plugin("ZamCompX2", PRESSED))
    assert np.array_equal(rendered(asked, PluginRack(host))[0], rendered(asked, PluginRack(host))[0])


def test_one_fault_costs_a_second_try(own_host: PluginHost) -> None:
    """The plugin is killed in the middle of the mix: the mix is what it would have been, and nobody is warned."""
    asked = plan(Plugin("ZamCompX2", PRESSED, stand_in=STAND_IN))
    rack = PluginRack(own_host)
    sound, report = rendered(asked, rack, Saboteur(rack, signal.SIGKILL, 1))
    assert np.array_equal(sound, rendered(asked, PluginRack(own_host))[0])
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "PLUGIN_CRASHED"), (signal.SIGSTOP, "PLUGIN_HUNG")], ids=["crash", "hang"]
)
def test_a_second_fault_costs_the_plugin(own_host: PluginHost, number: signal.Signals, reason: str) -> None:
    """The whole mix is then the stand-in's, to the bit, with a warning; the next mix does not wait for it again."""
    asked = plan(Plugin("ZamCompX2", PRESSED, stand_in=STAND_IN))
    rack = PluginRack(own_host)
    sound, report = rendered(asked, rack, Saboteur(rack, number, 2))
    assert np.array_equal(sound, rendered(native(), None)[0])
    assert [warning.code for warning in report.warnings] == [reason]
    assert [run.reason for run in report.plugins] == [reason]
    assert report.strips[0].processors[0].ran == "compressor in place of ZamCompX2"
    assert rendered(asked, PluginRack(own_host))[1].plugins[0].reason == reason


@pytest.mark.parametrize(("name", "reason"), [("ZamVerb", "PLUGIN_HUNG"), ("TDR Nova", "PLUGIN_MISSING")])
def test_a_plugin_that_never_loads_has_its_stand_in(own_host: PluginHost, name: str, reason: str) -> None:
    """A mix on a machine without the plugin, or with one that hangs, is the stand-in's and says so."""
    sound, report = rendered(plan(Plugin(name, {"some_db": 3.0}, stand_in=STAND_IN)), PluginRack(own_host))
    assert np.array_equal(sound, rendered(native(), None)[0])
    assert [warning.code for warning in report.warnings] == [reason]
    assert name in report.warnings[0].message


def test_parameters_are_checked_before_stems_are_read(host: PluginHost) -> None:
    """Nearest name and range, with the place in the plan; of a plugin that is not here nothing can be said."""
    with pytest.raises(InvalidInput, match=r"did you mean 'threshold_db'\?") as raised:
        check_plan_plugins(plan(Plugin("ZamCompX2", {"treshold_db": -20.0})), PluginRack(host))
    assert [entry.field for entry in raised.value.violations] == [
        "plan.strips[0].chain[0].plugin.parameters[treshold_db]"
    ]
    with pytest.raises(InvalidInput, match="must be -80 to 0 dB"):
        check_plan_plugins(plan(Plugin("ZamCompX2", {"threshold_db": -99.0})), PluginRack(host))
    check_plan_plugins(plan(Plugin("TDR Nova", {"anything": 1.0})), PluginRack(host))


def test_a_plan_has_a_limited_number_of_plugins() -> None:
    """Each is a process: a plan from outside may not start hundreds."""
    chain = tuple(Processor(str(index), Plugin("ZamCompX2")) for index in range(MOST_PLUGINS + 1))
    with pytest.raises(InvalidInput, match=f"at most {MOST_PLUGINS} plugins"):
        check_plan(MixPlan((Strip("a", "other", chain=chain),)), ["a"], RATE)


def test_cancelling_ends_the_plugins(own_host: PluginHost, tmp_path: Path) -> None:
    """A mix that is given up leaves no process behind."""
    rack = PluginRack(own_host)
    seen: list[int] = []

    def stop(fraction: float) -> None:
        seen.extend(rack.process_ids())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rendered(plan(Plugin("ZamCompX2")), rack, stop)
    assert seen
    for process_id in seen:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def test_a_plugin_beside_native_processors_keeps_time(host: PluginHost) -> None:
    """An impulse through a late plugin on one strip, and through none on the other, meets itself."""
    click = np.zeros((2, 40_000), np.float32)
    click[:, 12_345] = 0.25
    late = Processor("maximizer", Plugin("ZaMaximX2"))
    asked = MixPlan(
        (Strip("a", "other", chain=(late, Processor("width", StereoWidth(1.0)))), Strip("b", "other")),
    )
    out = np.concatenate(list(mix({"a": click, "b": click}, RATE, asked, plugins=PluginRack(host))), axis=1)
    assert int(np.argmax(np.abs(out[0]))) == 12_345
    assert out[0, 12_345] == pytest.approx(0.5, abs=0.01)
