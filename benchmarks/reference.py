"""How near our reference engine comes to a reference song, against matchering as its users run it.

    python -m benchmarks.reference [--quick] [--json] [--data DIR] [--only TEXT] [--minutes 60]

For every pair of song and reference in the test data, both render a 24-bit wav at full intensity, each in a process of
its own: ours from decoded samples to the measured file, matchering by `matchering.process` (its limiter included). The
distance of a result to its reference is the sum of four mean absolute differences in dB:

- spectrum: third-octave levels relative to loudness, 31.6 Hz to 15.8 kHz (Welch, 16384 frames);
- loudness: integrated, BS.1770-4;
- dynamics: in four bands, crest factor (99.9th percentile over RMS) and spread of 100 ms levels (95th to 10th
  percentile), of the mid signal;
- width: side over mid in the four bands, where the song is stereo.

It is computed by plain SciPy code that shares nothing with the engine's own measurements. Goals: median at most
matchering's, no pair beyond 1.1 times; true peak within 0.05 dB of -1 dBTP; CPU seconds at most 1.5 times and anonymous
memory at most a third, for the longest pair; memory for an hour at most 1.15 times that for three minutes.
Mono songs are doubled to stereo first, as both the pipeline and matchering do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal

from benchmarks import rows
from benchmarks.memory import anonymous_mebibytes
from benchmarks.rows import Row
from outboard.audio.files import decode
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import Spool
from outboard.audio.true_peak import measure_true_peak
from services.master.master import master
from services.master.reference import Reference
from services.master.settings import DeliverableSpec, GuardRails, MasterPlan, ReferenceMatch

Audio = NDArray[np.float32]
Levels = NDArray[np.float64]

CENTRES_HERTZ = 1000.0 * 10.0 ** (np.arange(-15, 13) / 10.0)
BANDS_HERTZ = ((30.0, 120.0), (120.0, 800.0), (800.0, 5000.0), (5000.0, 16000.0))
NARROWEST_DB = -40.0
GOALS = {"pair": 1.10, "median": 1.0, "time": 1.5, "memory": 1 / 3, "flat": 1.15}
PARTS = ("spectrum", "loudness", "dynamics", "width")


@dataclass(frozen=True)
class Sound:
    """What the distance compares."""

    lufs: float
    spectrum_db: Levels
    dynamics_db: Levels
    width_db: Levels


@dataclass(frozen=True)
class Run:
    """One rendering in a process of its own."""

    path: Path
    cpu_seconds: float
    mebibytes: float


def heard(audio: Audio, rate: int) -> Sound:
    """Measures (2, frames)."""
    lufs = integrated_loudness(audio, rate)
    if lufs is None:
        raise ValueError("a song without loudness cannot be compared")
    hertz, density = signal.welch(audio.astype(np.float64), rate, nperseg=16384)
    thirds = [
        density[:, (hertz >= centre * 10.0**-0.05) & (hertz < centre * 10.0**0.05)].sum() for centre in CENTRES_HERTZ
    ]
    mid, side = 0.5 * (audio[0].astype(np.float64) + audio[1]), 0.5 * (audio[0].astype(np.float64) - audio[1])
    bands = [_band(mid, side, low, high, rate) for low, high in BANDS_HERTZ]
    return Sound(
        lufs,
        10.0 * np.log10(np.maximum(thirds, 1e-14)) - lufs,
        np.array([(crest, spread) for crest, spread, _ in bands]),
        np.array([width for _, _, width in bands]),
    )


def _band(mid: Levels, side: Levels, low: float, high: float, rate: int) -> tuple[float, float, float]:
    sections = signal.butter(4, (low, high), "bandpass", fs=rate, output="sos")
    middle, sides = signal.sosfilt(sections, mid), signal.sosfilt(sections, side)
    step = rate // 10
    powers = (middle[: middle.size // step * step].reshape(-1, step) ** 2).mean(axis=1)
    powers = powers[powers > 1e-4 * powers.mean()]
    levels = 10.0 * np.log10(powers)
    crest = 20.0 * np.log10(np.percentile(np.abs(middle), 99.9) / np.sqrt(powers.mean()))
    width = max(NARROWEST_DB, 10.0 * np.log10((sides**2).mean() / (middle**2).mean() + 1e-12))
    return float(crest), float(np.percentile(levels, 95) - np.percentile(levels, 10)), float(width)


def distance(one: Sound, other: Sound, *, stereo: bool) -> dict[str, float]:
    """The four differences in dB, and their sum."""
    parts = {
        "spectrum": float(np.abs(one.spectrum_db - other.spectrum_db).mean()),
        "loudness": abs(one.lufs - other.lufs),
        "dynamics": float(np.abs(one.dynamics_db - other.dynamics_db).mean()),
        "width": float(np.abs(one.width_db - other.width_db).mean()) if stereo else 0.0,
    }
    return parts | {"sum": sum(parts.values())}


def wave(source: Path, folder: Path, seconds: float | None) -> tuple[Path, bool]:
    """A stereo float wav of a song, and whether the song is stereo."""
    path = folder / f"{source.stem}.wav"
    with decode(source, sample_rate_hertz=None) as file:
        frames = file.frames if seconds is None else min(file.frames, round(seconds * file.sample_rate_hertz))
        audio = np.array(file.array[:, :frames])
        stereo = audio.shape[0] == 2
        soundfile.write(path, (audio if stereo else np.repeat(audio, 2, axis=0)).T, file.sample_rate_hertz, "FLOAT")
    return path, stereo


def read(path: Path) -> tuple[Audio, int]:
    """(2, frames) and rate of a wav."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.T), rate


def rendered(engine: str, song: Path, reference: Path, target: Path) -> Run:
    """Renders in a child, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.reference", "--child", engine, str(song), str(reference), str(target)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return Run(target, **json.loads(told))


def child(engine: str, song: Path, reference: Path, target: Path) -> None:
    """Renders here, and prints CPU seconds and the highest anonymous memory above the start."""
    work = _ours if engine == "ours" else _theirs
    work(song, reference, target, warm_up=True)
    base, ended = anonymous_mebibytes(_own_id()), threading.Event()
    peak = [base]

    def sample() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous_mebibytes(_own_id()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    begun = time.process_time()
    work(song, reference, target, warm_up=False)
    seconds = time.process_time() - begun
    ended.set()
    sampler.join()
    print(json.dumps({"cpu_seconds": seconds, "mebibytes": peak[0] - base}))


def _own_id() -> int:
    return int(Path("/proc/self").resolve().name)


def _ours(song: Path, reference: Path, target: Path, *, warm_up: bool) -> None:
    with decode(song, sample_rate_hertz=None) as mix, decode(reference, sample_rate_hertz=None) as goal:
        rate = mix.sample_rate_hertz
        plan = MasterPlan(
            "reference", "match", -1.0, guard_rails=GuardRails(equalizer_db=9.0), match=ReferenceMatch(),
            deliverables=(DeliverableSpec(target.stem, "wav", rate),),
        )  # fmt: skip
        frames = 6 * rate if warm_up else mix.frames
        if warm_up:
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                _master(mix.array[:, :frames], rate, plan, Path(folder), goal.array, goal.sample_rate_hertz)
        else:
            _master(mix.array, rate, plan, target.parent, goal.array, goal.sample_rate_hertz)


def _master(mix: Audio, rate: int, plan: MasterPlan, folder: Path, goal: Audio, goal_rate: int) -> None:
    master(mix, rate, plan, directory=folder, references=[Reference("reference", goal, goal_rate)], spool_factory=Spool)


def _theirs(song: Path, reference: Path, target: Path, *, warm_up: bool) -> None:
    warnings.simplefilter("ignore")
    import matchering

    if not warm_up:
        config = matchering.Config(max_length=1e9)
        matchering.process(str(song), str(reference), [matchering.pcm24(str(target))], config=config)


def compared(pair: str, song: Path, reference: Path, folder: Path, *, stereo: bool) -> tuple[list[Row], list[Run]]:
    """Rows of one pair."""
    goal = heard(*read(reference))
    runs = [rendered(engine, song, reference, folder / f"{engine}.wav") for engine in ("ours", "theirs")]
    ours, theirs = (distance(heard(*read(run.path)), goal, stereo=stereo) for run in runs)
    found = [rows.at_most(f"{pair}: distance", ours["sum"], theirs["sum"], "dB", GOALS["pair"])]
    parts = [part for part in PARTS if theirs[part] > 0.0]
    found += [rows.at_most(f"{pair}: {part}", ours[part], theirs[part], "dB", None) for part in parts]
    peaks = [_true_peak(run.path) for run in runs]
    found.append(rows.at_most(f"{pair}: time", runs[0].cpu_seconds, runs[1].cpu_seconds, "CPU s", None))
    found.append(Row(f"{pair}: true peak", peaks[0], peaks[1], None, "dBTP", -0.95, peaks[0] <= -0.95))
    return found, runs


def _true_peak(path: Path) -> float:
    meter = measure_true_peak(read(path)[0])
    return max(value for value in (meter.soxr_dbtp, meter.kaiser_dbtp, meter.annex2_dbtp) if value is not None)


def flat(song: Path, reference: Path, folder: Path, minutes: float) -> Row:
    """Our memory for a song that is repeated to that length, against that for three minutes of it."""
    audio, rate = read(song)
    peaks = []
    for length in (3.0, minutes):
        path = folder / f"{length:g}_minutes.wav"
        with soundfile.SoundFile(path, "w", rate, 2, "FLOAT", format="RF64") as file:
            for _ in range(max(1, round(length * 60.0 * rate / audio.shape[1]))):
                file.write(audio.T)
        peaks.append(rendered("ours", path, reference, folder / "long.wav").mebibytes)
        path.unlink()
    return rows.at_most(f"memory: {minutes:g} min / 3 min", peaks[1], peaks[0], "MiB", GOALS["flat"])


def main(arguments: list[str] | None = None) -> int:
    """Prints all rows; 0 where every goal holds."""
    parser = rows.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with songs/ and references/")
    parser.add_argument("--child", nargs=4, metavar=("ENGINE", "SONG", "REFERENCE", "TARGET"), help="for itself")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the long song; 0: leave it out")
    parser.add_argument(
        "--only", default="", help="pairs whose names hold this text, for instance 'diffrhythm, karissa'"
    )
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child[0], *map(Path, options.child[1:]))
        return 0
    seconds = 40.0 if options.quick else None
    judged: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        references = [wave(path, folder, seconds)[0] for path in sorted((options.data / "references").iterdir())]
        songs = [wave(path, folder, seconds) for path in sorted((options.data / "songs").iterdir())]
        sums, longest = [], (0, "", [Run(folder, 0.0, 0.0)] * 2)
        for song, stereo in songs[:2] if options.quick else songs:
            for reference in references:
                pair = f"{song.stem.split('_repo')[0]}, {reference.stem.split('_')[0]}"
                if options.only not in pair:
                    continue
                found, runs = compared(pair, song, reference, folder, stereo=stereo)
                rows.show(found, as_json=options.json)
                judged += found
                sums.append((found[0].ours, found[0].theirs or 0.0))
                size = song.stat().st_size + reference.stat().st_size
                longest = max(longest, (size, pair, runs), key=lambda entry: entry[0])
        last = _summary(sums, longest[1], longest[2])
        if options.minutes and not options.quick:
            last.append(flat(songs[0][0], references[0], folder, options.minutes))
        rows.show(last, as_json=options.json)
    return rows.exit_code(judged + last)


def _summary(sums: list[tuple[float, float]], pair: str, runs: list[Run]) -> list[Row]:
    ours, theirs = np.median(np.array(sums), axis=0)
    return [
        rows.at_most("median distance", float(ours), float(theirs), "dB", GOALS["median"]),
        rows.at_most(f"longest pair ({pair}): time", runs[0].cpu_seconds, runs[1].cpu_seconds, "CPU s", GOALS["time"]),
        rows.at_most(f"longest pair ({pair}): memory", runs[0].mebibytes, runs[1].mebibytes, "MiB", GOALS["memory"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
