"""VST3 plugins at work: their sound, their latency, and what happens when one fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from outboard.audio.chain import Chain
from outboard.audio.filters import SosFilter, butterworth_low_pass
from outboard.audio.fir import linear_phase_taps
from outboard.audio.plugins.facts import PluginFailed
from outboard.audio.plugins.host import BLOCK_FRAMES, PluginHost, PluginLimits
from outboard.audio.plugins.latency import true_latency_frames
from outboard.audio.plugins.rack import HostedPlugin, PluginRack
from outboard.audio.processors import Compressor, Delay, Plugin, Processor
from tests.plugins import zam_folder

RATE = 48_000


@pytest.fixture(scope="module")
def patient() -> Iterator[PluginHost]:
    """For ZamDelay, whose thousands of parameter steps take a busy machine long."""
    made = PluginHost((zam_folder(),), PluginLimits(load_seconds=60.0))
    yield made
    made.close()


def noise(frames: int = 20_000) -> np.ndarray:
    return (0.2 * np.random.default_rng(1).standard_normal((2, frames))).astype(np.float32)


def through(rack: PluginRack, plugin: Plugin, sound: np.ndarray, cuts: tuple[int, ...] = (16_384,)) -> np.ndarray:
    """All of the sound through a chain of this plugin, cut into such pieces over and over; its latency taken out."""
    chain = Chain((Processor("p", plugin),), RATE, rack)
    late = chain.latency_frames
    padded = np.concatenate([sound, np.zeros((2, late), np.float32)], axis=1)
    out, start, turn = [], 0, 0
    while start < padded.shape[1]:
        size = cuts[turn % len(cuts)]
        out.append(chain.process(padded[:, start : start + size]))
        start, turn = start + size, turn + 1
    rack.close()
    return np.concatenate(out, axis=1)[:, late:]


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_plugin_sounds_as_it_is_set(host: PluginHost) -> None:
    """A compressor far over its threshold turns down; its parameters are in its own units."""
    sound = noise()
    with PluginRack(host) as rack:
        idle = through(rack, Plugin("ZamCompX2", {"threshold_db": 0.0}), sound)
        pressed = through(rack, Plugin("ZamCompX2", {"threshold_db": -50.0, "ratio": 20.0}), sound)
    change_db = 20.0 * np.log10(np.std(pressed[:, 10_000:]) / np.std(idle[:, 10_000:]))
    assert change_db < -10.0, f"{change_db:.1f} dB"


@pytest.mark.parametrize("name", ["ZamCompX2", "ZamComp", "ZaMaximX2"])
def test_the_sound_does_not_depend_on_blocks_or_runs(host: PluginHost, name: str) -> None:
    """Bit for bit, for a stereo, a mono and a late plugin."""
    plugin = Plugin(name, {"threshold_db": -25.0})
    with PluginRack(host) as rack:
        whole = through(rack, plugin, noise())
        cut = through(rack, plugin, noise(), (1, 777, 4_096, BLOCK_FRAMES, 63))
    assert np.array_equal(whole, cut)
    assert np.ptp(whole) > 0.1


@pytest.mark.parametrize("name", ["ZaMaximX2", "ZamCompX2", "ZamEQ2"])
def test_latency_is_taken_out(host: PluginHost, name: str) -> None:
    """An impulse at frame n stays at frame n, whatever the plugin holds back."""
    sound = np.zeros((2, 6_000), np.float32)
    sound[:, 2_345] = 0.25
    with PluginRack(host) as rack:
        out = through(rack, Plugin(name), sound)
    assert int(np.argmax(np.abs(out[0]))) == 2_345


def test_latencies_are_measured(host: PluginHost) -> None:
    """Debian's plugins all come when they say, and an impulse shows it: through a mono one, a gate, a filter."""
    names = ("ZaMaximX2", "ZamCompX2", "ZamEQ2", "ZamGateX2", "ZamPhono", "ZamTube")
    found = {name: host.find(name) for name in names}
    assert {name: one.latency_frames for name, one in found.items()} == dict.fromkeys(names, 0) | {"ZaMaximX2": 480}
    assert all(one.latency_frames == one.reported_latency_frames for one in found.values())


LATE = Plugin("ZamDelay", {"time_ms": 20.0, "dry_wet": 1.0, "feedback": 0.0, "lpf_hz": 20_000.0})


def test_a_plugin_that_comes_later_than_it_says_is_compensated_and_told(patient: PluginHost) -> None:
    """ZamDelay, all wet, tells no latency and comes 20 ms late: where no effect of time has the slot, that is taken
    out, and the warning has both numbers.
    """
    sound = np.zeros((2, 6_000), np.float32)
    sound[:, 2_345] = 0.25
    with PluginRack(patient) as rack:
        out = through(rack, LATE, sound)
        (warning,) = rack.warnings()
    assert int(np.argmax(np.abs(out[0]))) == 2_345
    assert warning.code == "PLUGIN_LATENCY"
    assert "ZamDelay says that it is 0 frames late, an impulse through it 960" in warning.message


def test_an_echo_is_late_by_design(patient: PluginHost) -> None:
    """In the slot of a native delay the same plugin keeps its 20 ms, and nobody is warned."""
    sound = np.zeros((2, 6_000), np.float32)
    sound[:, 2_345] = 0.25
    echo = replace(LATE, stand_in=Processor("delay", Delay(20.0, 0.0)))
    with PluginRack(patient) as rack:
        out = through(rack, echo, sound)
        assert rack.warnings() == ()
    assert int(np.argmax(np.abs(out[0]))) == 2_345 + 960


def impulse_at(*frames: int, size: int = 20_000) -> np.ndarray:
    response = np.zeros((2, size), np.float32)
    response[:, list(frames)] = 0.25
    return response


@pytest.mark.parametrize(
    ("response", "reported", "true"),
    [
        (impulse_at(480), 480, 480),
        (impulse_at(481), 480, 481),
        (impulse_at(0), 64, 0),
        (impulse_at(), 64, 64),
        (impulse_at(15_000), 0, 0),
        (impulse_at(15_000), 14_000, 14_000),
        (impulse_at(10, 3_000), 0, 0),
    ],
    ids=["right", "one frame off", "earlier", "nothing", "an echo", "long and told", "two of a kind"],
)
def test_what_an_impulse_tells_of_latency(response: np.ndarray, reported: int, true: int) -> None:
    """Sharp responses count to the frame; silence and what comes later than a tenth of a second tell nothing."""
    assert true_latency_frames(response, reported, RATE) == true


@pytest.mark.parametrize(("reported", "true"), [(1_023, 1_023), (0, 1_023), (1_000, 1_000)])
def test_filters_are_not_taken_for_latency(reported: int, true: int) -> None:
    """A linear-phase filter counts by its peak, a low-pass that has none to speak of comes when it says."""
    linear = np.zeros((1, 8_000), np.float32)
    linear[0, :2_047] = 0.25 * linear_phase_taps([100.0, 2_000.0], [0.0, -40.0], RATE, taps=2_047)
    assert true_latency_frames(linear, reported, RATE) == true
    low = np.zeros((1, 8_000), np.float32)
    low[0, 0] = 0.25
    low = SosFilter(butterworth_low_pass(150.0, RATE, 4), 1).process(low)
    assert true_latency_frames(low, 0, RATE) == 0


def test_a_mono_plugin_runs_once_per_channel(host: PluginHost) -> None:
    """Left and right are treated apart: what is silent on one side stays silent there."""
    sound = noise()
    sound[1] = 0.0
    with PluginRack(host) as rack:
        out = through(rack, Plugin("ZamEQ2", {"boost_cut_1_db": 6.0}), sound)
    assert np.max(np.abs(out[1])) < 1e-6
    assert np.std(out[0]) > 0.1


def test_a_stand_in_takes_the_slot_and_is_named(host: PluginHost) -> None:
    """Where the plugin is missing the native processor sounds, to the bit, and report and warning say so."""
    native = Compressor(-30.0, 4.0)
    stand_in = Processor("compressor", native)
    with PluginRack(host) as rack:
        chain = Chain((Processor("compressor", Plugin("RoughRider3", stand_in=stand_in)),), RATE, rack)
        assert np.array_equal(chain.process(noise()), Chain((stand_in,), RATE).process(noise()))
        (report,) = chain.reports()
        (warning,) = rack.warnings()
        bare = Chain((Processor("x", Plugin("RoughRider3")),), RATE, rack)
        assert np.array_equal(bare.process(noise()), noise())
        assert bare.reports()[0].ran == "nothing in place of RoughRider3"
    assert report.ran == "compressor in place of RoughRider3"
    assert report.average_gain_db is not None
    assert report.average_gain_db < 0.0
    assert warning.code == "PLUGIN_MISSING"
    assert warning.message.endswith("its stand-in took its place")


def test_what_ran_is_reported_with_its_version(host: PluginHost) -> None:
    """Name as it was asked for, and the plugin's own version."""
    with PluginRack(host) as rack:
        chain = Chain((Processor("glue", Plugin("ZamCompX2")),), RATE, rack)
        assert chain.reports()[0].ran == f"ZamCompX2 {host.find('ZamCompX2').version}"
        assert rack.warnings() == ()


def test_a_crash_at_work_is_an_error_and_nothing_else(host: PluginHost) -> None:
    """The process of the plugin is killed in the middle of a song: the next block says so within a moment."""
    with PluginRack(host) as rack:
        hosted = rack.open(Plugin("ZamCompX2"), RATE)
        assert isinstance(hosted, HostedPlugin)
        hosted.process(noise(4_096))
        os.kill(hosted.process_id, signal.SIGKILL)
        with pytest.raises(PluginFailed, match="signal 9 at work") as raised:
            hosted.process(noise(4_096))
    assert raised.value.reason == "PLUGIN_CRASHED"
    assert raised.value.metadata == {"plugin": "ZamCompX2"}


def test_a_hang_at_work_ends_at_the_time_limit() -> None:
    """A plugin that stops in the middle of a song is given up, and its process is gone."""
    host = PluginHost((zam_folder(),), PluginLimits(block_seconds=0.5, warm_processes=0))
    with PluginRack(host) as rack:
        hosted = rack.open(Plugin("ZamCompX2"), RATE)
        assert isinstance(hosted, HostedPlugin)
        os.kill(hosted.process_id, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(PluginFailed) as raised:
            hosted.process(noise(4_096))
        assert time.monotonic() - began < 5.0
        assert raised.value.reason == "PLUGIN_HUNG"
    assert not alive(hosted.process_id)


def test_a_second_fault_makes_way_for_the_stand_in() -> None:
    """One retry with the plugin; then its stand-in, a warning, and for some minutes nobody tries it again."""
    host = PluginHost((zam_folder(),), PluginLimits(warm_processes=0))
    plugin = Plugin("ZamCompX2")
    fault = PluginFailed("ZamCompX2", "ZamCompX2 ended", "PLUGIN_CRASHED")
    with PluginRack(host) as rack:
        assert rack.open(plugin, RATE) is not None
        rack.failed(fault)
        assert rack.open(plugin, RATE) is not None
        assert rack.warnings() == ()
        rack.failed(fault)
        assert rack.open(plugin, RATE) is None
        assert [warning.code for warning in rack.warnings()] == ["PLUGIN_CRASHED"]
    assert host.find("ZamCompX2").reason == "PLUGIN_CRASHED"


def test_memory_of_a_plugin_is_limited() -> None:
    """The limit holds for its process from the start: one that is too small is a fault of the plugin, not of ours."""
    host = PluginHost((zam_folder(),), PluginLimits(memory_bytes=96 * 1024**2, warm_processes=0))
    assert host.find("ZamCompX2").reason == "PLUGIN_CRASHED"


def test_processes_are_kept_warm_and_end_with_the_host() -> None:
    """The next plugin finds a process that is up; nothing is left when the host closes."""
    host = PluginHost((zam_folder(),), PluginLimits(warm_processes=2))
    host.find("ZamCompX2")
    waiting = host.waiting_process_ids()
    assert len(waiting) == 2
    with PluginRack(host) as rack:
        hosted = rack.open(Plugin("ZamCompX2"), RATE)
        assert isinstance(hosted, HostedPlugin)
        assert hosted.process_id in waiting
        left = [*host.waiting_process_ids(), hosted.process_id]
    host.close()
    assert not any(alive(process_id) for process_id in left)


def test_plugins_run_at_once_and_off_the_main_thread(host: PluginHost) -> None:
    """Four threads, one plugin each: all give what one alone gives."""
    alone: list[np.ndarray] = []
    with PluginRack(host) as rack:
        alone.append(through(rack, Plugin("ZamCompX2", {"threshold_db": -30.0}), noise()))
    results: list[np.ndarray] = []

    def work() -> None:
        with PluginRack(host) as own:
            results.append(through(own, Plugin("ZamCompX2", {"threshold_db": -30.0}), noise()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, alone[0]) for result in results)
