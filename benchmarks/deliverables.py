"""What every kind of delivered file keeps of its ceiling and its loudness, on hostile signals and on songs.

    python -m benchmarks.deliverables [--quick] [--songs] [--json] [--data DIR]

Six hostile signals (full-scale squares, clicks, noise bursts, random signs, inter-sample peaks of 6 dB, DC steps;
5.5 s) times four intents (streaming, loud, custom at -12 LUFS and -2 dBTP, reference) times 19 kinds of file (wav of
16, 24 and 32 float bits and flac of 16 and 24 bits at 44.1, 48 and 96 kHz; mp3 of 320 and 128 kbit/s at 44.1 and
48 kHz), all from mixes at 48 kHz; `--songs`: the same files of every song of the test data, streaming and loud, whole.

Per kind of file, worst of all: the highest of the contract's three true-peak meters on the decoded file, less the
ceiling (goal: at most 0.05 dB, mp3 0.2 dB); beside it the reading of ffmpeg's ebur128, which no guard watches; and what
the file lost of its master's loudness (goal: 0.1 LU, mp3 0.05 LU; where more, the file's own reason must say so).
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ffmpeg_meter, rows
from benchmarks.hostile import HOSTILE, every_file, hostile
from benchmarks.rows import Row
from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import decode, to_stereo
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import Spool, blocks, default_directory
from outboard.audio.true_peak import measure_true_peak
from services.master.deliver import tolerance_db
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
LOST_LU = {"wav": 0.1, "flac": 0.1, "mp3": 0.05}


@dataclass(frozen=True)
class Reading:
    """One delivered file as others read it.

    Attributes:
        over_db: highest of the contract's three meters over the ceiling; -inf for silence.
        ffmpeg_over_db: ffmpeg's reading over the ceiling.
        lufs: of the decoded file; None where unmeasurable.
        target_lufs: what the plan aims at.
        report: what the master says of it.
    """

    over_db: float
    ffmpeg_over_db: float
    lufs: float | None
    target_lufs: float | None
    report: DeliverableReport


def delivered(mix: NDArray[np.float32], settings: MasterSettings) -> Iterator[Reading]:
    """Masters a mix at 48 kHz and reads each of its files; the reference intent follows a demo song."""
    analysis = analyze(mix, RATE_HERTZ)
    references = [Reference("demo", synthesise(300, 8.0).clean, RATE_HERTZ)] if settings.intent == "reference" else []
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        decided = plan(analysis, settings)
        result = master(mix, RATE_HERTZ, decided, directory=Path(folder), references=references, before=analysis)
        for file, report in zip(result.deliverables, result.report.deliverables, strict=True):
            with decode(file.path, sample_rate_hertz=None) as decoded:
                peak = measure_true_peak(blocks(decoded.array)).true_peak_dbtp
                theirs = ffmpeg_meter.read(decoded.array, decoded.sample_rate_hertz)
                lufs = integrated_loudness(decoded.array, decoded.sample_rate_hertz)
            over = -np.inf if peak is None else peak - decided.ceiling_dbtp
            ffmpeg_over = theirs.true_peak_dbtp - decided.ceiling_dbtp
            yield Reading(over, ffmpeg_over, lufs, result.report.plan.target_lufs, report)


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
    for path in sorted((data / "songs").glob("*.mp3")):
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
        lost = [lost_lu(one) for one in found]
        untold = [one for one, lu in zip(found, lost, strict=True) if lu > LOST_LU[spec.container] and not told(one)]
        yield Row(f"{name}: furthest from the target, without a reason", max([0.0, *map(lost_lu, untold)]), None, None,
                  "LU", LOST_LU[spec.container], not untold)  # fmt: skip
        yield Row(f"{name}: files with a reason", len(found) - sum(not told(one) for one in found), None, None, "files",
                  None, None)  # fmt: skip
        encodes = [one.report.encodes for one in found]
        yield Row(f"{name}: encodes, most / mean", max(encodes), float(np.mean(encodes)), None, "", None, None)
        if spec.container == "mp3":
            down = [one.report.turned_down for one in found]
            yield Row(
                f"{name}: granules turned down, most / mean", max(down), float(np.mean(down)), None, "", None, None
            )


def lost_lu(reading: Reading) -> float:
    """How far a file is from its target."""
    if reading.lufs is None or reading.target_lufs is None:
        return 0.0
    return abs(reading.target_lufs - reading.lufs)


def told(reading: Reading) -> bool:
    """Whether the file's own reason says why it is not at its target."""
    return bool(reading.report.target_missed_reason)


def main() -> int:
    """Prints the rows; 0 where every goal holds."""
    options = rows.parser(__doc__)
    options.add_argument("--songs", action="store_true", help="songs instead of hostile signals")
    options.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    given = options.parse_args()
    files = every_file()[:: 6 if given.quick else 1]
    if given.songs:
        found = list(table(song_readings(given.data, files)))
    else:
        intents = ("loud",) if given.quick else tuple(INTENTS)
        found = list(table(hostile_readings(HOSTILE, intents, files)))
    rows.show(found, as_json=given.json)
    return rows.exit_code(found)


if __name__ == "__main__":
    sys.exit(main())
