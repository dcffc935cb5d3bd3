"""VST3 plugins that are installed: what is known of real ones, and every way in which one can be no use."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from outboard.audio.plugins.facts import parameter_faults
from outboard.audio.plugins.host import PluginHost, PluginLimits, host_from
from outboard.settings import PluginSettings
from tests.plugins import copy_bundle, crashing_bundle, old_bundle, zam_folder

RATE = 48_000


def folder_host(folder: Path, **limits: float) -> PluginHost:
    return PluginHost((folder,), PluginLimits(warm_processes=0, **limits))  # type: ignore[arg-type]


def test_facts_of_real_plugins(host: PluginHost) -> None:
    """Name, version, channels, latency, and parameters with their ranges and units, from the plugin itself."""
    stereo, mono, late = host.find("ZamCompX2"), host.find("ZamComp"), host.find("ZaMaximX2")
    assert stereo.usable
    assert stereo.version
    assert len(stereo.digest) == 64
    threshold = stereo.parameters["threshold_db"]
    assert (threshold.low, threshold.high, threshold.unit) == (-80.0, 0.0, "dB")
    assert "Zero" in stereo.parameters["current_program"].choices
    assert (stereo.channels, mono.channels, late.latency_frames) == (2, 1, 480)
    assert host.find("zam comp x2").path == stereo.path, "spaces and case do not count"


def test_a_plugin_that_is_not_there(host: PluginHost) -> None:
    """Its reason is its own; a path is a name like any other, and nothing is called like it."""
    for name in ("TDR Nova", "../../../etc/passwd", "/usr/lib/vst3/ZamCompX2.vst3", "", "...", "\0"):
        assert host.find(name).reason == "PLUGIN_MISSING", name


def test_a_plugin_for_another_machine(tmp_path: Path) -> None:
    """A 32-bit binary, a bundle without one for this machine, and a file that is no binary are told apart."""
    old_bundle(tmp_path)
    other = copy_bundle("ZamCompX2", tmp_path, "Elsewhere")
    other.parent.rename(other.parent.with_name("riscv64-linux"))
    text = copy_bundle("ZamCompX2", tmp_path, "Text")
    text.write_text("no binary, but long enough to have a header")
    host = folder_host(tmp_path)
    for name, told in (("Old", "32-bit"), ("Elsewhere", "riscv64-linux"), ("Text", "no program")):
        facts = host.find(name)
        assert facts.reason == "PLUGIN_WRONG_MACHINE", name
        assert told in facts.message


def test_a_plugin_that_crashes_as_it_is_loaded(tmp_path: Path) -> None:
    """Only its process ends; the reason is remembered while the file is the same."""
    crashing_bundle(tmp_path)
    host = folder_host(tmp_path)
    facts = host.find("Crasher")
    assert facts.reason == "PLUGIN_CRASHED", facts
    assert "signal 11" in facts.message
    began = time.monotonic()
    assert host.find("Crasher") == facts
    assert time.monotonic() - began < 0.1, "it was loaded again"


def test_a_plugin_that_hangs_as_it_is_loaded() -> None:
    """ZamVerb never comes back from being loaded: the time limit ends it, and nothing of it stays."""
    host = PluginHost((zam_folder(),), PluginLimits(load_seconds=1.5, warm_processes=0))
    facts = host.find("ZamVerb")
    assert facts.reason == "PLUGIN_HUNG", facts
    assert "1.5 s" in facts.message


def test_a_file_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    """An update of a plugin counts at once."""
    binary = copy_bundle("ZamCompX2", tmp_path, "Mine")
    host = folder_host(tmp_path)
    before = host.find("Mine")
    newer = (zam_folder() / "ZaMaximX2.vst3").rglob("*.so")
    binary.write_bytes(next(newer).read_bytes())
    after = host.find("Mine")
    assert (before.latency_frames, after.latency_frames) == (0, 480)
    assert before.digest != after.digest


def test_all_plugins_are_listed_by_name(tmp_path: Path) -> None:
    """Everything in the folders, those that are no use with their reason; of one name the first folder's counts."""
    first, second = tmp_path / "first", tmp_path / "second"
    copy_bundle("ZamCompX2", first, "one")
    old_bundle(first, "Old")
    copy_bundle("ZamEQ2", second, "Two")
    copy_bundle("ZaMaximX2", second, "one")
    found = PluginHost((first, second), PluginLimits(warm_processes=0)).all()
    told = [(facts.name, facts.reason, facts.latency_frames) for facts in found]
    assert told == [("Old", "PLUGIN_WRONG_MACHINE", 0), ("one", "", 0), ("Two", "", 0)]


def test_folders_come_from_the_environment(tmp_path: Path) -> None:
    """Several folders, nested ones searched; empty means the standard ones."""
    copy_bundle("ZamCompX2", tmp_path / "maker", "Nested")
    host = host_from(PluginSettings(folders=f"/nowhere:{tmp_path}", warm_processes=0))
    assert host.find("Nested").usable
    assert Path("/usr/lib/vst3") in host_from(PluginSettings()).folders


@pytest.mark.parametrize(
    ("numbers", "choices", "told"),
    [
        ({"treshold_db": -10.0}, {}, "did you mean 'threshold_db'?"),
        ({"threshold_db": 5.0}, {}, "is 5, must be -80 to 0 dB"),
        ({"threshold_db": float("nan")}, {}, "must be -80 to 0 dB"),
        ({}, {"current_program": "Poppy"}, "did you mean 'PoppySnare'?"),
        ({"current_program": 1.0}, {}, "not a number"),
        ({}, {"threshold_db": "low"}, "is a number from -80 to 0 dB"),
    ],
)
def test_wrong_parameters_are_told(
    host: PluginHost, numbers: dict[str, float], choices: dict[str, str], told: str
) -> None:
    """Each with the nearest name, the range or the words that there are."""
    found = list(parameter_faults(host.find("ZamCompX2"), numbers, choices))
    assert len(found) == 1
    assert told in found[0][1]
