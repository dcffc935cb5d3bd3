"""What restoration mends, what it costs, and what it leaves alone.

    python -m benchmarks.restoration [--data FOLDER] [--seconds 4] [--part PART ...] [--quick] [--json] [--table]

- `matrix`: every pathology on every clean stem (`benchmarks.restoration_cases`), by the whole chain in automatic mode
  and by each engine alone, in log-spectral distance to the clean stem and in the index that tells of the fault;
- `bandwidth`: stems low-passed at 8 and 11 kHz beside noise that has the tilt and the level of what was lost;
- `clean`: how much of a clean stem each engine changes in automatic mode;
- `speed`: the whole chain in automatic mode, per stereo stem on one core, and its memory.

``--table`` prints the matrix as a table in Markdown, pathologies down and engines across, as docs/benchmarks.md has it.
``--data`` is a folder of real stems (default: OUTBOARD_TEST_DATA); demo stems are always judged. Noise is judged where
`deepfilternet3` can run.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.restoration_cases import (
    RATE,
    Case,
    Stem,
    cases,
    distance_db,
    index_of,
    low_pass,
    matched_noise,
    stems,
    third_octave_errors_db,
)
from benchmarks.rows import Row, exit_code, show
from benchmarks.rows import parser as options_of_every_benchmark
from outboard.audio.demo import PATHOLOGIES, synthesise
from outboard.settings import Settings
from outboard.testing import drained
from services.restorer.deployment import Deployment
from services.restorer.diagnosis import examine
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, restore
from services.restorer.settings import BANDWIDTH, DEEPFILTERNET3, REPAIR
from services.restorer.voice import VoiceEngine

Audio = NDArray[np.float32]

IMPROVED_SHARE = 0.95
WORSE_AT_MOST_DB = 0.5
CUTOFFS_HERTZ = (8_000.0, 11_000.0)
NOISE_RATIO = 0.85
THIRD_OCTAVE_ERROR_DB = 4.0
FULL_BAND_HERTZ = 16_000.0
KEPT_DB, KEPT_OF_SINGING_DB = 40.0, 35.0
REAL_TIME_LIMIT = 0.15
_SAME_DB = 1e-6


def restored(
    audio: Audio, role: str, *engines: str, voice: VoiceEngine | None = None
) -> tuple[Audio, RestorationReport]:
    """A stem through some engines in automatic mode, or through the automatic chain, and the report."""
    settings = RestorationSettings(role=role, steps=tuple(RestorationStep(engine) for engine in engines))
    blocks, report = drained(restore(audio, RATE, settings, voice=voice))
    return np.concatenate(blocks, axis=1), report


def judged(case: Case, voice: VoiceEngine | None, *engines: str) -> tuple[float, float, float]:
    """Log-spectral distance afterwards, and the matching index before and afterwards."""
    return _outcome(case, voice, *engines)[0]


def _outcome(case: Case, voice: VoiceEngine | None, *engines: str) -> tuple[tuple[float, float, float], frozenset[str]]:
    """What `judged` gives, and which engines acted."""
    output, report = restored(case.audio, case.stem.role, *engines, voice=voice)
    acted = frozenset(action.engine for action in report.actions if action.amount)
    before = index_of(case.pathology, report.found, case.stem)
    if report.unchanged:
        return (case.damage_db, before, before), acted
    # Over the lines that the coder coded: what was added above them is another matter.
    left = examine(output, RATE, earlier=examine(case.audio, RATE)).diagnosis
    after = index_of(case.pathology, left, case.stem)
    return (distance_db(case.stem, output), before, after), acted


def _outcomes(case: Case, voice: VoiceEngine | None, chains: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """What the whole chain gives, and each engine alone, in the order of the automatic chain.

    An engine alone is computed only where the whole chain does not tell: if it acted alone it gives the same, and if no
    engine before it acted it saw the same and left it as it was.
    """
    whole, acted = _outcome(case, voice)
    found = {"auto": whole}
    before = frozenset[str]()
    for engine in chains:
        if acted == {engine}:
            found[engine] = whole
        elif engine not in acted and not acted & before:
            found[engine] = (case.damage_db, whole[1], whole[1])
        else:
            found[engine] = judged(case, voice, engine)
        before |= {engine}
    return found


def matrix(found: list[Stem], voice: VoiceEngine | None, *, alone: bool = True) -> Iterator[Row]:
    """The pathologies, by the whole chain and, if wanted, by each engine alone."""
    chain = (REPAIR, BANDWIDTH) if voice is None else (REPAIR, DEEPFILTERNET3, BANDWIDTH)
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    mended: list[bool] = []
    changes: list[float] = []
    for stem in found:
        for case in cases(stem):
            if case.pathology.startswith("noise") and voice is None:
                continue
            for name, (after_db, before, after) in _outcomes(case, voice, chain if alone else ()).items():
                gains[case.pathology, name].append(case.damage_db - after_db)
                if name == "auto":
                    mended.append(after_db < case.damage_db - _SAME_DB and after < before)
                    changes.append(after_db - case.damage_db)
                    if not mended[-1] or changes[-1] > WORSE_AT_MOST_DB:
                        figures = f"{case.damage_db:.2f} -> {after_db:.2f} dB, index {before:.4g} -> {after:.4g}"
                        print(f"  {case.pathology}, {stem.name}: {figures}", file=sys.stderr)
    for (pathology, name), values in gains.items():
        unit = f"dB closer, n={len(values)}"
        yield Row(f"{pathology}: {name}, mean", float(np.mean(values)), None, None, unit, None, None)
    share = float(np.mean(mended))
    yield Row("cases mended", share, None, None, f"of {len(mended)}", IMPROVED_SHARE, share >= IMPROVED_SHARE)
    worst = max(changes)
    yield Row("worst case, further away", worst, None, None, "dB", WORSE_AT_MOST_DB, worst <= WORSE_AT_MOST_DB)


def table(rows: Sequence[Row]) -> str:
    """The rows of `matrix` as a table: pathologies down, the whole chain and each engine alone across."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        pathology, _, chain = row.name.removesuffix(", mean").partition(": ")
        if row.name.endswith(", mean"):
            cells[pathology][chain] = f"{row.ours:+.2f}"
            cells[pathology]["n"] = row.unit.rpartition("=")[2]
    chains = list(dict.fromkeys(chain for values in cells.values() for chain in values if chain != "n"))
    head = ["", "cases", *chains]
    lines = [head, ["---"] * len(head)]
    lines += [[name, values["n"], *(values[chain] for chain in chains)] for name, values in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bandwidth(found: list[Stem]) -> Iterator[Row]:
    """The new band beside noise with the tilt and level of the lost one."""
    errors: list[float] = []
    for cutoff_hertz in CUTOFFS_HERTZ:
        ratios, ours, theirs = [], [], []
        for stem in found:
            cut = low_pass(stem.audio, cutoff_hertz)
            if stem.end_hertz < 1.1 * cutoff_hertz or distance_db(stem, cut, cutoff_hertz) < 1.0:
                continue  # nothing was lost
            output, _ = restored(cut, "", BANDWIDTH)
            ours.append(distance_db(stem, output, cutoff_hertz))
            theirs.append(distance_db(stem, cut + matched_noise(stem, cutoff_hertz), cutoff_hertz))
            ratios.append(ours[-1] / theirs[-1])
            errors += third_octave_errors_db(stem, output, cutoff_hertz)
        name, ratio = f"above {cutoff_hertz / 1e3:.0f} kHz, mean of {len(ratios)} stems", float(np.mean(ratios))
        yield Row(name, float(np.mean(ours)), float(np.mean(theirs)), ratio, "dB", NOISE_RATIO, ratio <= NOISE_RATIO)
        yield Row(f"above {cutoff_hertz / 1e3:.0f} kHz, worst stem", max(ratios), None, None, "ratio", None, None)
    middle = float(np.median(np.abs(errors)))
    holds = middle <= THIRD_OCTAVE_ERROR_DB
    yield Row("level error of thirds, median", middle, None, None, "dB", THIRD_OCTAVE_ERROR_DB, holds)


def clean(found: list[Stem], voice: VoiceEngine | None) -> Iterator[Row]:
    """What is left of clean stems: the smallest SNR over those that are full band, and over singing."""
    chains: dict[str, tuple[str, ...]] = {"auto": (), REPAIR: (REPAIR,), BANDWIDTH: (BANDWIDTH,)}
    if voice is not None:
        chains[DEEPFILTERNET3] = (DEEPFILTERNET3,)
    for name, engines in chains.items():
        kept = {True: [200.0], False: [200.0]}
        for stem in found:
            is_singing = stem.role.endswith("vocal")
            if not is_singing and stem.end_hertz < FULL_BAND_HERTZ:
                continue
            output, report = restored(stem.audio, stem.role, *engines, voice=voice)
            error = float(np.sum((output.astype(np.float64) - stem.audio) ** 2))
            snr_db = 200.0 if report.unchanged else 10 * np.log10(np.sum(stem.audio.astype(np.float64) ** 2) / error)
            kept[is_singing].append(float(snr_db))
        for is_singing, goal in ((False, KEPT_DB), (True, KEPT_OF_SINGING_DB)):
            what, least = "singing" if is_singing else "full-band stems", min(kept[is_singing])
            yield Row(f"clean {what}: {name}, smallest SNR", least, None, None, "dB", goal, least >= goal)


def speed(voice: VoiceEngine | None, seconds: float) -> Iterator[Row]:
    """Processor time of the whole chain in automatic mode, on stems that need all of it, and anonymous memory."""
    song = synthesise(23, 20.0)
    repeats = max(1, round(seconds / 20.0))
    for name, role in (("other", "other"), ("vocals", "lead_vocal")):
        spoiled = low_pass(PATHOLOGIES["shimmer"](song.stems[name], RATE, 3, 0.8), 11_000.0)
        level = 0.8 * np.max(np.abs(spoiled))
        noise = 1e-3 * np.random.default_rng(1).standard_normal(spoiled.shape)
        stem = np.tile(np.clip(spoiled, -level, level) + noise, (1, repeats)).astype(np.float32)
        for what, audio in (("clean", np.tile(song.stems[name], (1, repeats))), ("all faults", stem)):
            for _ in restore(audio[:, : 5 * RATE], RATE, RestorationSettings(role=role), voice=voice):
                pass  # compiles and loads
            begun = time.process_time()
            for _ in restore(audio, RATE, RestorationSettings(role=role), voice=voice):
                pass
            share = (time.process_time() - begun) * RATE / audio.shape[1]
            holds = share <= REAL_TIME_LIMIT
            yield Row(f"auto, {name}, {what}", share, None, None, "of real time", REAL_TIME_LIMIT, holds)
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    yield Row(f"peak memory of it all, {20 * repeats} s", mebibytes, None, None, "MiB", None, None)


def options() -> argparse.Namespace:
    """The command line."""
    made = options_of_every_benchmark(__doc__)
    given = os.environ.get("OUTBOARD_TEST_DATA")
    made.add_argument("--data", type=Path, default=Path(given) if given else None, help="folder of real stems")
    made.add_argument("--seconds", type=float, default=4.0, help="of each excerpt")
    made.add_argument("--part", nargs="*", default=["matrix", "bandwidth", "clean", "speed"], help="which to run")
    made.add_argument("--table", action="store_true", help="print the matrix as a table in Markdown too")
    return made.parse_args()


def main() -> int:
    """Runs and prints all of it."""
    chosen = options()
    engine = Deployment(Settings()).voice()
    voice = engine if engine.info.available else None
    if voice is None:
        print(f"without deepfilternet3: {engine.info.unavailable_reason}", file=sys.stderr)
    found = list(stems(None if chosen.quick else chosen.data, chosen.seconds))
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "matrix": lambda: matrix(found, voice),
        "bandwidth": lambda: bandwidth(found),
        "clean": lambda: clean(found, voice),
        "speed": lambda: speed(voice, 20.0 if chosen.quick else 60.0),
    }
    rows = []
    for name in chosen.part:
        for row in parts[name]():
            rows.append(row)
            show([row], as_json=chosen.json)
    if chosen.table:
        print(table(rows))
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
