"""What every kind of delivered file keeps of its ceiling and its loudness, on hostile signals and on songs.

    python -m benchmarks.deliverables [--quick] [--songs | --memory] [--json] [--data DIR]

Six hostile signals (full-scale squares, clicks, noise bursts, random signs, inter-sample peaks of 6 dB, DC steps;
5.5 s) times four intents (streaming, loud, custom at -12 LUFS and -2 dBTP, reference) times 19 kinds of file (wav of
16, 24 and 32 float bits and flac of 16 and 24 bits at 44.1, 48 and 96 kHz; mp3 of 320 and 128 kbit/s at 44.1 and
48 kHz), all from mixes at 48 kHz. `--songs`: eight of these files of every song of the test data, streaming and loud,
whole.

Per kind of file, worst of all: the highest of the contract's three true-peak meters on the decoded file, less the
ceiling (goal: at most 0.05 dB, mp3 0.2 dB); beside it the reading of ffmpeg's ebur128, which no guard watches; how far
the file is from the target without a reason of its own (goal: 0.1 LU); and what it is off the loudness of the first
lossless file of the same master, which is what coding took (mp3, goal: 0.05 LU).

`--memory`: peak anonymous memory (RssAnon + RssShmem) while a loud master on disk becomes a wav, a flac and an mp3 of
128 kbit/s at another rate, 8 minutes against 2 (quick: 1 against a third). Goal: at most 1.15 times.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ffmpeg_meter, rows
from benchmarks.hostile import HOSTILE, every_file, hostile
from benchmarks.memory import anonymous_mebibytes
from benchmarks.rows import Row
from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import decode, to_stereo
from outboard.audio.limiter import LimiterSettings
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import Spool, blocks, default_directory
from outboard.audio.true_peak import measure_true_peak
from services.master.deliver import Target, deliver, tolerance_db
from services.master.master import master
from services.master.plan import plan
from services.master.reference import Reference
from services.master.settings import DeliverableReport, DeliverableSpec, MasterSettings

RATE_HERTZ = 48000
SECONDS = 5.5  # a reference is matched from 5 s on
INTENTS = {
    "streaming": MasterSettings(intent="streaming"),
    "loud": MasterSettings(intent="loud"),
    "custom": MasterSettings(intent="custom", target_lufs=-12.0, ceiling_dbtp=-2.0),
    "reference": MasterSettings(intent="reference"),
}
MISSED_LU, LOST_LU = 0.1, 0.05
SONG_FILES = (
    "wav-16-44100", "wav-24-48000", "wav-32f-96000", "flac-24-44100",
    "mp3-320-44100", "mp3-320-48000", "mp3-128-44100", "mp3-128-48000",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One delivered file as others read it.

    Attributes:
        over_db: highest of the contract's three meters over the ceiling; -inf for silence.
        ffmpeg_over_db: ffmpeg's reading over the ceiling.
        lufs: of the decoded file; None where unmeasurable.
        target_lufs: what the plan aims at.
        lossless_lufs: of the first lossless file of the same master, where there is one.
        report: what the master says of it.
    """

    over_db: float
    ffmpeg_over_db: float
    lufs: float | None
    target_lufs: float | None
    lossless_lufs: float | None
    report: DeliverableReport

    @property
    def missed_lu(self) -> float:
        """How far from the target."""
        return abs((self.lufs or 0.0) - self.target_lufs) if self.lufs and self.target_lufs else 0.0

    @property
    def lost_lu(self) -> float:
        """What coding took."""
        return self.lossless_lufs - self.lufs if self.lufs and self.lossless_lufs else 0.0


def delivered(mix: NDArray[np.float32], settings: MasterSettings) -> Iterator[Reading]:
    """Masters a mix at 48 kHz and reads each of its files; the reference intent follows a demo song."""
    analysis = analyze(mix, RATE_HERTZ)
    references = [Reference("demo", synthesise(300, 8.0).clean, RATE_HERTZ)] if settings.intent == "reference" else []
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        decided = plan(analysis, settings)
        result = master(mix, RATE_HERTZ, decided, directory=Path(folder), references=references, before=analysis)
        lossless = [report.integrated_lufs for report in result.report.deliverables if report.spec.container != "mp3"]
        for file, report in zip(result.deliverables, result.report.deliverables, strict=True):
            with decode(file.path, sample_rate_hertz=None) as decoded:
                peak = measure_true_peak(blocks(decoded.array)).true_peak_dbtp
                theirs = ffmpeg_meter.read(decoded.array, decoded.sample_rate_hertz)
                lufs = integrated_loudness(decoded.array, decoded.sample_rate_hertz)
            over = -np.inf if peak is None else peak - decided.ceiling_dbtp
            ffmpeg_over = theirs.true_peak_dbtp - decided.ceiling_dbtp
            first = lossless[0] if lossless else None
            yield Reading(over, ffmpeg_over, lufs, result.report.plan.target_lufs, first, report)


def hostile_readings(
    names: Sequence[str], intents: Sequence[str], files: tuple[DeliverableSpec, ...]
) -> Iterator[Reading]:
    """All files of all hostile signals and intents."""
    for name in names:
        for intent in intents:
            settings = INTENTS[intent]
            mix = hostile(name, RATE_HERTZ, SECONDS)
            yield from delivered(mix, MasterSettings(**vars(settings) | {"deliverables": files}))


def song_readings(data: Path, files: tuple[DeliverableSpec, ...]) -> Iterator[Reading]:
    """All files of all songs, streaming and loud."""
    songs = sorted((data / "songs").glob("*.mp3"))
    if not songs:
        raise SystemExit(f"no songs in {data}: say where the test data is with --data")
    for path in songs:
        with decode(path, sample_rate_hertz=RATE_HERTZ) as song, Spool(2) as stereo:
            for block in blocks(song.array):
                stereo.append(to_stereo(block))
            for intent in ("streaming", "loud"):
                yield from delivered(stereo.array, MasterSettings(intent=intent, deliverables=files))


def kind(spec: DeliverableSpec) -> str:
    """What the rows are told by."""
    return f"mp3 {spec.bitrate_kbps} kbit/s" if spec.container == "mp3" else f"{spec.container} {spec.bit_depth} bit"


def table(readings: Iterable[Reading]) -> Iterator[Row]:
    """The worst of each kind of file."""
    kinds: dict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        kinds[kind(reading.report.spec)].append(reading)
    for name, found in kinds.items():
        spec = found[0].report.spec
        over, theirs = max(one.over_db for one in found), max(one.ffmpeg_over_db for one in found)
        goal = tolerance_db(spec)
        label = f"{name}, {len(found)} files: over the ceiling"
        yield Row(f"{label} / as ffmpeg reads it", over, theirs, None, "dB", goal, over <= goal)
        missed = [one.missed_lu for one in found if not one.report.target_missed_reason]
        worst = max(missed, default=0.0)
        label = f"{name}: furthest from the target, {len(missed)} files without a reason"
        yield Row(label, worst, None, None, "LU", MISSED_LU, worst <= MISSED_LU)
        if spec.container == "mp3":
            lost, number = max(one.lost_lu for one in found), sum(one.lost_lu > LOST_LU for one in found)
            label = f"{name}: lost to coding, worst / files over the goal"
            yield Row(label, lost, number, None, "LU", LOST_LU, lost <= LOST_LU)
        encodes = [one.report.encodes for one in found]
        yield Row(f"{name}: encodes, most / mean", max(encodes), float(np.mean(encodes)), None, "", None, None)
        if spec.container == "mp3":
            down = [one.report.turned_down for one in found]
            yield Row(
                f"{name}: granules turned down, most / mean", max(down), float(np.mean(down)), None, "", None, None
            )


def memory_row(*, quick: bool) -> Row:
    """The longer against the shorter; the shorter goes first, so that what it leaves behind counts against us."""
    short, long = (1.0 / 3.0, 1.0) if quick else (2.0, 8.0)
    song = hostile_song()
    peaks = [peak_mebibytes(song, minutes) for minutes in (short, long)]
    return rows.at_most(f"memory: {long:.1f} min / {short:.1f} min", peaks[1], peaks[0], "MiB", 1.15)


def hostile_song() -> NDArray[np.float32]:
    """Twenty seconds of a demo song under bursts of noise, at its ceiling everywhere."""
    song = synthesise(300, 20.0).clean
    return np.clip(4.0 * song + 0.3 * hostile("noise_bursts", RATE_HERTZ, 20.0), -0.85, 0.85).astype(np.float32)


def peak_mebibytes(song: NDArray[np.float32], minutes: float) -> float:
    """Highest anonymous memory while a repeated song is delivered."""
    peak, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous_mebibytes(os.getpid()))

    files = (
        DeliverableSpec("a", "wav", 44100), DeliverableSpec("b", "flac", 44100),
        DeliverableSpec("c", "mp3", 44100, bitrate_kbps=128),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder, Spool(2) as spool:
        for _ in range(round(minutes * 60.0 * RATE_HERTZ / song.shape[1])):
            spool.append(song)
        lufs = integrated_loudness(blocks(spool.array), RATE_HERTZ)
        sampler = threading.Thread(target=sample)
        sampler.start()
        for file in files:
            limiter = LimiterSettings(ceiling_dbtp=-1.04)
            target = Target(file, Path(folder), -1.0, limiter, lufs, 0, None, Spool)
            deliver(spool.array, RATE_HERTZ, target, lambda fraction: None)
        ended.set()
        sampler.join()
    return peak[0]


def main() -> int:
    """Prints the rows; 0 where every goal holds."""
    options = rows.parser(__doc__)
    options.add_argument("--songs", action="store_true", help="songs instead of hostile signals")
    options.add_argument("--memory", action="store_true", help="memory instead of ceilings")
    options.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    given = options.parse_args()
    files = every_file()[:: 6 if given.quick else 1]
    if given.memory:
        found = [memory_row(quick=given.quick)]
    elif given.songs:
        files = tuple(file for file in every_file() if file.name in SONG_FILES)[:: 3 if given.quick else 1]
        found = list(table(song_readings(given.data, files)))
    else:
        intents = ("loud",) if given.quick else tuple(INTENTS)
        found = list(table(hostile_readings(HOSTILE, intents, files)))
    rows.show(found, as_json=given.json)
    return rows.exit_code(found)


if __name__ == "__main__":
    sys.exit(main())
