"""An engine's version is part of the name under which its results are stored: it must rise when the sound changes.

Each engine that needs nothing renders six seconds of the demo song, and its sound is held against what was measured
when its version was last raised: thirds of an octave, loudness, side against mid, and the level of every quarter of a
second, with the preset's numbers of that time (a result's name holds them anyway). All of it to about a tenth of a dB,
which no other machine or library moves and an ear can barely tell.

After a change of sound: raise the version where the failure says, then

    OUTBOARD_REFRESH_GOLDEN=1 .venv/bin/python -m pytest -p no:xdist tests/conformance/test_golden_sound.py

and commit `golden_sound.json` with it. Only engines whose version was raised are measured anew.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.demo import DemoSong, synthesise
from outboard.presets import KEYS, Preset, with_values
from services.master.master import master
from services.master.plan import plan as plan_master
from services.master.report import ENGINE_VERSIONS
from services.master.settings import DeliverableSpec, MasterSettings
from services.mixer.console import CONSOLE, MixSettings, engine_info
from services.mixer.hearing import hear
from services.mixer.mix import mix
from services.mixer.plan import plan as plan_mix
from services.restorer.restore import restore
from services.restorer.settings import BANDWIDTH, REPAIR, RestorationSettings, RestorationStep, engines
from services.separator.engines import SeparationSettings
from services.separator.separate import list_engines, separate

Audio = np.ndarray
Sound = dict[str, list[float]]

GOLDEN = Path(__file__).with_name("golden_sound.json")
REFRESH = "OUTBOARD_REFRESH_GOLDEN"
TOLERANCE_DB = 0.15
SECONDS = 6.0
_FLOOR_DB = -60.0  # what is softer is no difference that anyone hears
_STEP_SECONDS = 0.25


@functools.cache
def demo() -> DemoSong:
    """Eight seconds, of which the last six are used: the song has begun."""
    return synthesise(11, SECONDS + 2.0)


def excerpt(audio: Audio) -> Audio:
    return np.ascontiguousarray(audio[:, -int(SECONDS * demo().sample_rate_hertz) :])


@functools.cache
def stems() -> dict[str, Audio]:
    return {name: excerpt(stem) for name, stem in demo().stems.items()}


@functools.cache
def measured(name: str) -> Analysis:
    return analyze(excerpt(demo().song) if name == "song" else stems()[name], demo().sample_rate_hertz)


def separated(folder: Path, preset: Preset) -> dict[str, Audio]:
    parts = list(separate([excerpt(demo().song)], demo().sample_rate_hertz, SeparationSettings(engine="spectral")))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def restored(folder: Path, preset: Preset) -> dict[str, Audio]:
    """A song that is clipped, carries an offset and shimmers."""
    spoiled = np.clip(2.0 * excerpt(demo().song) + 0.02, -1.0, 1.0).astype(np.float32)
    blocks = restore(spoiled, demo().sample_rate_hertz, RestorationSettings(steps=(RestorationStep(REPAIR),)))
    return {"stem": np.concatenate(list(blocks), axis=1)}


def extended(folder: Path, preset: Preset) -> dict[str, Audio]:
    """Stems that were cut off at 8 kHz."""
    taps = signal.firwin(801, 8_000.0, window=("kaiser", 9.0), fs=demo().sample_rate_hertz)
    found = {}
    for name, stem in stems().items():
        cut = signal.oaconvolve(stem, taps[None, :], mode="same", axes=1).astype(np.float32)
        settings = RestorationSettings(steps=(RestorationStep(BANDWIDTH),))
        blocks = restore(cut, demo().sample_rate_hertz, settings)
        found[name] = np.concatenate(list(blocks), axis=1)
    return found


def mixed(folder: Path, preset: Preset) -> dict[str, Audio]:
    """The console twice: stems of a song, whose faults it mends, and supplied ones, which it balances."""
    found = {}
    for name, song in (("separated", measured("song")), ("supplied", None)):
        analyses = {stem: measured(stem) for stem in stems()}
        roles = dict(zip(("vocals", "drums", "bass", "other"), ("lead_vocal", "drums", "bass", "other"), strict=True))
        heard = {stem: hear(stems()[stem], demo().sample_rate_hertz) for stem in stems()}
        decided = plan_mix(analyses, roles, song, preset, MixSettings(), heard=heard)
        blocks = mix(stems(), demo().sample_rate_hertz, decided, spool_directory=folder)
        found[name] = np.concatenate(list(blocks), axis=1)
    return found


def mastered(folder: Path, preset: Preset) -> dict[str, Audio]:
    """Streaming and loud."""
    found = {}
    for intent in ("streaming", "loud"):
        files = (DeliverableSpec(name=intent, bit_depth="32f"),)
        settings = MasterSettings(intent=intent, deliverables=files)
        decided = plan_master(measured("song"), settings, preset.values)
        result = master(excerpt(demo().song), demo().sample_rate_hertz, decided, directory=folder)
        samples, _ = soundfile.read(result.deliverables[0].path, dtype="float32", always_2d=True)
        found[intent] = np.ascontiguousarray(samples.T)
    return found


# Engine -> its version, where that stands, and what renders it.
ENGINES: dict[str, tuple[Callable[[], int], str, Callable[[Path, Preset], dict[str, Audio]]]] = {
    "separator spectral": (
        lambda: next(engine.version for engine in list_engines() if engine.name == "spectral"),
        "VERSION in services/separator/spectral/engine.py",
        separated,
    ),
    "restorer repair": (
        lambda: next(engine.version for engine in engines() if engine.name == REPAIR),
        "ENGINES in services/restorer/settings.py",
        restored,
    ),
    "restorer bandwidth": (
        lambda: next(engine.version for engine in engines() if engine.name == BANDWIDTH),
        "ENGINES in services/restorer/settings.py",
        extended,
    ),
    "mixer console": (
        lambda: engine_info(CONSOLE).version,
        "ENGINES in services/mixer/console.py",
        mixed,
    ),
    "master chain": (
        lambda: ENGINE_VERSIONS["chain"],
        "ENGINE_VERSIONS in services/master/report.py (of every engine that changed: all share the limiter)",
        mastered,
    ),
}


def sound_of(audio: Audio) -> Sound:
    """What is compared, in dB, rounded to a hundredth."""
    analysis = analyze(audio, demo().sample_rate_hertz)
    step = int(_STEP_SECONDS * demo().sample_rate_hertz)
    powers = [np.mean(np.square(audio[:, at : at + step], dtype=np.float64)) for at in range(0, audio.shape[1], step)]
    sound = {
        "loudness": [analysis.integrated_lufs],
        "side against mid": [analysis.mid_side_ratio_db],
        "thirds of an octave": [band.level_db for band in analysis.third_octaves],
        "quarters of a second": [10.0 * math.log10(max(float(power), 1e-12)) for power in powers],
    }
    return {name: [_FLOOR_DB if x is None else round(max(x, _FLOOR_DB), 2) for x in xs] for name, xs in sound.items()}


def differences(golden: dict[str, Sound], found: dict[str, Sound]) -> list[str]:
    """A line for every figure group that moved, with how far."""
    lines = [f"{part} is new or gone" for part in sorted(set(golden) ^ set(found))]
    for part in sorted(set(golden) & set(found)):
        for name, before in golden[part].items():
            after = found[part].get(name, [])
            if len(after) != len(before):
                lines.append(f"{part}, {name}: {len(after)} figures instead of {len(before)}")
                continue
            furthest = max((abs(a - b) for a, b in zip(after, before, strict=True)), default=0.0)
            if furthest > TOLERANCE_DB:
                lines.append(f"{part}, {name}: up to {furthest:.2f} dB off")
    return lines


@pytest.mark.parametrize("engine", ENGINES)
def test_the_version_rises_when_the_sound_changes(engine: str, tmp_path: Path) -> None:
    """Same version, same sound; a raised version comes with its new sound in `golden_sound.json`."""
    version_of, place, render = ENGINES[engine]
    version = version_of()
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known = golden.get(engine, {"version": 0, "sound": {}})
    is_new = version != known["version"]
    numbers = {} if is_new else {key: value for key, value in known["preset"].items() if key in KEYS}
    preset = with_values("", numbers)
    found = {name: sound_of(audio) for name, audio in render(tmp_path, preset).items()}
    command = f"{REFRESH}=1 .venv/bin/python -m pytest -p no:xdist tests/conformance/{Path(__file__).name}"
    how = f"run {command} and commit {GOLDEN.name}"
    if is_new:
        assert os.environ.get(REFRESH), (
            f"{engine} is at version {version}, the golden sound at {known['version']}: {how}"
        )
        golden[engine] = {"version": version, "sound": found, "preset": preset.values}
        lines = [f"{json.dumps(name)}: {json.dumps(golden[name])}" for name in sorted(golden)]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    moved = differences(known["sound"], found)
    assert not moved, (
        f"{engine} sounds different from its version {version}: {'; '.join(moved)}. Stored results would pass for the "
        f"new sound. If the change is meant, raise {place} by one, then {how}."
    )


def test_a_changed_sound_is_noticed(tmp_path: Path) -> None:
    """Half a dB of the upper middle is found; a gain of a hundredth of a dB, as of another machine, is not."""
    audio = excerpt(demo().song)
    golden = {"stem": sound_of(audio)}
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(audio.shape[1], 1.0 / demo().sample_rate_hertz)
    spectrum[:, (hertz > 2_000.0) & (hertz < 4_000.0)] *= 10 ** (0.5 / 20.0)
    brighter = np.fft.irfft(spectrum, audio.shape[1]).astype(np.float32)
    assert differences(golden, {"stem": sound_of(brighter)})
    assert not differences(golden, {"stem": sound_of(audio * np.float32(10 ** (0.01 / 20.0)))})
