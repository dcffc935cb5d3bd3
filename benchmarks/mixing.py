"""The console's speed and memory: twelve stems through strips, buses and mix bus.

    python -m benchmarks.mixing [--minutes 30] [--quick] [--json] [--stems FOLDER] [--parts speed|memory]

Speed: 250 s of twelve stereo stems at 48 kHz. Every strip has a high-pass, two bells, a shelf and a compressor, three
buses a compressor and a bell, the mix a compressor; beside it the same chain of pedalboard's own plugins, its strips in
as many threads (pedalboard lets go of the interpreter's lock, as our kernels do). Ours also measures loudness, sides
and masking of every strip for its report; theirs measures nothing, so our processors are timed without that as well.
Then the mix with the saturator, eight times oversampled, on every strip: pedalboard has no such thing, so that row
stands alone. Goals: 0.06 of real time without saturation, 0.12 with it, at most 1.5 times pedalboard's time. Processor
time per core stands beside wall time: it is what a machine needs that does nothing else.

Memory: anonymous memory (RssAnon + RssShmem) of a process of its own, which mixes twelve mapped stems of 3 minutes and
of 30. Goal: at most 1.15.

The stems are those of a folder, looped (--stems; $OUTBOARD_TEST_DATA/stems/potassium where that is set), or noise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pedalboard
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.memory import anonymous_mebibytes
from outboard.audio.chain import Chain
from outboard.audio.files import decode
from outboard.audio.processors import (
    Compressor,
    Equalizer,
    FilterBand,
    Processor,
    Saturator,
)
from services.mixer.console import Bus, MixPlan, Strip
from services.mixer.mix import mix

RATE_HERTZ = 48_000
STEMS = 12
SECONDS = 250.0
SHORT_SECONDS = 180.0
BLOCK_FRAMES = 16_384
BUSES = ("drums", "music", "vocals")
TURNS = 3
_PERIOD_SECONDS = 0.05

Stems = Mapping[str, NDArray[np.float32]]


def plan(names: list[str], *, saturation: bool) -> MixPlan:
    """The console's chain."""
    bands = (
        FilterBand("high_pass", 80.0, order=2),
        FilterBand("peak", 320.0, -2.0, 1.0),
        FilterBand("peak", 3_000.0, 1.5, 0.8),
        FilterBand("high_shelf", 9_000.0, 1.5),
    )
    chain = [
        Processor("tone", Equalizer(bands)),
        Processor("compressor", Compressor(-24.0, 2.0, attack_ms=10.0, release_ms=120.0)),
    ]
    if saturation:
        chain.append(Processor("warmth", Saturator("tanh", 3.0, 0.5)))
    bell = Processor("clean_up", Equalizer((FilterBand("peak", 280.0, -1.5, 1.0),)))
    glue = Processor("glue", Compressor(-18.0, 2.0, attack_ms=20.0, release_ms=150.0))
    strips = tuple(
        Strip(name, "other", gain_db=-8.0, chain=tuple(chain), bus=BUSES[index % len(BUSES)])
        for index, name in enumerate(names)
    )
    return MixPlan(strips, tuple(Bus(name, chain=(glue, bell)) for name in BUSES), (glue,), peak_target_dbfs=-6.0)


def ours(stems: Stems, folder: Path, *, saturation: bool) -> None:
    """The whole mix, block after block, into nothing."""
    made = plan(sorted(stems), saturation=saturation)
    for _ in mix(stems, RATE_HERTZ, made, spool_directory=folder, corrections=0):
        pass


def unmetered(stems: Stems, folder: Path) -> None:
    """Our processors alone, driven as theirs are: no meters, no report, no peak target."""
    made = plan(sorted(stems), saturation=False)
    strips = {strip.stem: Chain(strip.chain, RATE_HERTZ) for strip in made.strips}
    buses = [Chain(bus.chain, RATE_HERTZ) for bus in made.buses]
    total = Chain(made.master_chain, RATE_HERTZ)
    names, gain = sorted(stems), np.float32(10.0 ** (-8.0 / 20.0))
    frames = next(iter(stems.values())).shape[1]
    with ThreadPoolExecutor(os.cpu_count()) as threads, tempfile.TemporaryFile(dir=folder) as out:

        def one(name: str, start: int) -> NDArray[np.float32]:
            block = np.ascontiguousarray(stems[name][:, start : start + BLOCK_FRAMES])
            done: NDArray[np.float32] = strips[name].process(block) * gain
            return done

        for start in range(0, frames, BLOCK_FRAMES):
            parts = list(threads.map(one, names, [start] * len(names)))
            sums = [np.sum(parts[index :: len(BUSES)], axis=0, dtype=np.float32) for index in range(len(BUSES))]
            mixed = [bus.process(part) for bus, part in zip(buses, sums, strict=True)]
            out.write(total.process(np.sum(mixed, axis=0, dtype=np.float32)).T.tobytes())


def theirs(stems: Stems, folder: Path) -> None:
    """The same chain of pedalboard's plugins, in blocks, into a file of the same size."""

    def strip() -> pedalboard.Pedalboard:
        return pedalboard.Pedalboard(
            [
                pedalboard.HighpassFilter(80.0),
                pedalboard.PeakFilter(320.0, -2.0, 1.0),
                pedalboard.PeakFilter(3_000.0, 1.5, 0.8),
                pedalboard.HighShelfFilter(9_000.0, 1.5),
                pedalboard.Compressor(-24.0, 2.0, 10.0, 120.0),
                pedalboard.Gain(-8.0),
            ]
        )

    def glue() -> pedalboard.Compressor:
        return pedalboard.Compressor(-18.0, 2.0, 20.0, 150.0)

    names = sorted(stems)
    strips = {name: strip() for name in names}
    buses = [pedalboard.Pedalboard([glue(), pedalboard.PeakFilter(280.0, -1.5, 1.0)]) for _ in BUSES]
    total = glue()
    frames = next(iter(stems.values())).shape[1]
    with ThreadPoolExecutor(os.cpu_count()) as threads, tempfile.TemporaryFile(dir=folder) as out:

        def one(name: str, start: int) -> NDArray[np.float32]:
            block = np.ascontiguousarray(stems[name][:, start : start + BLOCK_FRAMES])
            done: NDArray[np.float32] = strips[name](block, RATE_HERTZ, BLOCK_FRAMES, False)
            return done

        for start in range(0, frames, BLOCK_FRAMES):
            parts = list(threads.map(one, names, [start] * len(names)))
            sums = [np.sum(parts[index :: len(BUSES)], axis=0, dtype=np.float32) for index in range(len(BUSES))]
            mixed = [bus(part, RATE_HERTZ, BLOCK_FRAMES, False) for bus, part in zip(buses, sums, strict=True)]
            out.write(total(np.sum(mixed, axis=0, dtype=np.float32), RATE_HERTZ, BLOCK_FRAMES, False).T.tobytes())


def stem_files(folder: Path, source: Path | None, seconds: float) -> dict[str, NDArray[np.float32]]:
    """Twelve mapped stereo stems of that length: those of a folder, looped, or noise."""
    files = sorted(path for path in source.iterdir() if path.suffix == ".m4a")[:STEMS] if source else []
    made: dict[str, NDArray[np.float32]] = {}
    for index in range(STEMS):
        path = folder / f"{index}.f32"
        with path.open("wb") as file:
            for block in _looped(files[index % len(files)] if files else None, round(seconds * RATE_HERTZ), index):
                file.write(block.T.tobytes())
        mapped: NDArray[np.float32] = np.memmap(path, np.float32, "r").reshape(-1, 2).T
        made[f"stem{index:02d}"] = mapped
    return made


def _looped(file: Path | None, frames: int, seed: int) -> Iterator[NDArray[np.float32]]:
    if file is None:
        random = np.random.default_rng(seed)
        for start in range(0, frames, RATE_HERTZ):
            size = min(RATE_HERTZ, frames - start)
            yield (0.1 * random.standard_normal((2, size))).astype(np.float32)
        return
    with decode(file, sample_rate_hertz=RATE_HERTZ, field="stem") as decoded:
        sound = decoded.array if decoded.array.shape[0] == 2 else np.repeat(decoded.array[:1], 2, axis=0)
        done = 0
        while done < frames:
            begin = done % sound.shape[1]
            size = min(RATE_HERTZ, frames - done, sound.shape[1] - begin)
            yield np.array(sound[:, begin : begin + size])
            done += size


def best_seconds(work: Callable[[], None], turns: int) -> tuple[float, float]:
    """Wall time and processor time per core of the fastest turn."""
    walls, busy = [], []
    for _ in range(turns):
        began, worked = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - began)
        busy.append((time.process_time() - worked) / (os.cpu_count() or 1))
    return min(walls), min(busy)


def speed(seconds: float, source: Path | None, turns: int) -> list[rows.Row]:
    """Real-time factors."""
    with tempfile.TemporaryDirectory(dir=_disk()) as name:
        folder = Path(name)
        stems = stem_files(folder, source, seconds)
        warm = {name: stem[:, : 2 * BLOCK_FRAMES] for name, stem in stems.items()}
        ours(warm, folder, saturation=True)
        theirs(warm, folder)
        plain = best_seconds(lambda: ours(stems, folder, saturation=False), turns)
        warmed = best_seconds(lambda: ours(stems, folder, saturation=True), turns)
        bare = best_seconds(lambda: unmetered(stems, folder), turns)
        pedals = best_seconds(lambda: theirs(stems, folder), turns)
    found = []
    for kind, index in (("wall time", 0), ("processor time per core", 1)):
        for what, figure, limit in (("", plain[index], 0.06), (", saturated at 8x", warmed[index], 0.12)):
            share = figure / seconds
            name = f"12 stems, {seconds:g} s{what}: {kind}"
            found.append(rows.Row(name, share, None, None, "of real time", limit, share <= limit))
        for what, figure in (("processors", bare[index]), ("with the report's meters", plain[index])):
            name = f"{what}, beside pedalboard's: {kind}"
            found.append(rows.at_most(name, figure / seconds, pedals[index] / seconds, "of real time", 1.5))
    return found


def peak_mebibytes(seconds: float, source: Path | None) -> float:
    """Highest anonymous memory of a process that mixes stems of that length."""
    with tempfile.TemporaryDirectory(dir=_disk()) as name:
        stem_files(Path(name), source, seconds)
        command = [sys.executable, "-m", "benchmarks.mixing", "--child", name]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
            peak = 0.0
            ended = threading.Event()
            while child.poll() is None:
                peak = max(peak, anonymous_mebibytes(child.pid))
                ended.wait(_PERIOD_SECONDS)
        if child.returncode:
            raise RuntimeError("the mixing process failed")
    return peak


def memory(minutes: float, source: Path | None) -> list[rows.Row]:
    """Memory of a long mix against that of a short one."""
    short, long = peak_mebibytes(SHORT_SECONDS, source), peak_mebibytes(60.0 * minutes, source)
    return [rows.at_most(f"memory: {minutes:g} min / 3 min", long, short, "MiB", 1.15)]


def _child(folder: Path) -> None:
    """Mixes the stems that lie in a folder."""
    paths = sorted(folder.glob("*.f32"))
    stems = {path.stem: np.memmap(path, np.float32, "r").reshape(-1, 2).T for path in paths}
    ours(stems, folder, saturation=True)


def _disk() -> Path:
    from outboard.audio.spool import default_directory

    return default_directory()


def main() -> int:
    """Prints the rows; 0 where every goal holds."""
    parser = rows.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the long mix")
    parser.add_argument("--stems", type=Path, help="folder of stems")
    parser.add_argument("--parts", choices=("speed", "memory"), help="only one of the two")
    parser.add_argument("--child", type=Path, help="(used by the benchmark itself)")
    options = parser.parse_args()
    if options.child:
        _child(options.child)
        return 0
    data = os.environ.get("OUTBOARD_TEST_DATA")
    source = options.stems or (Path(data) / "stems" / "potassium" if data else None)
    results = []
    if options.parts != "memory":
        results += speed(*((30.0, source, 1) if options.quick else (SECONDS, source, TURNS)))
    if options.parts != "speed":
        results += memory(9.0 if options.quick else options.minutes, source)
    rows.show(results, as_json=options.json)
    return rows.exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
