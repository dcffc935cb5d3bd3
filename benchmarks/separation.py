"""How well a separation engine separates, beside what one gets for nothing: the mixture itself, a band-pass, HPSS's
percussive part.

    python -m benchmarks.separation [--engine spectral] [--truth FOLDER] [--seeds 100-107] [--quick] [--json]

``--truth`` is a folder of songs in MUSDB18-HQ's layout (``SONG/{mixture,vocals,drums,bass,other}.wav`` or .flac);
the demo songs of the given seeds are always judged too. A clip is judged by SI-SDR (Le Roux et al. 2019) and by SDR
(the plain ratio of the stem's energy to the error's), both over all channels and the clip's whole length. SI-SDR
forgives a wrong gain, SDR does not. A row's ``ratio`` is ours over theirs, as a power ratio for decibels.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from benchmarks.rows import Row, exit_code
from benchmarks.rows import parser as options_of_every_benchmark
from outboard.audio.demo import synthesise
from services.separator.engines import FOUR_STEMS, SeparationSettings
from services.separator.separate import separate

Audio = NDArray[np.float32]

BAND_PASS_HERTZ = (180.0, 8_000.0)
DEMO_SECONDS = 20.0
QUICK_SECONDS = 10.0
BLOCK_FRAMES = 65_536
# What must hold, as ours minus theirs in dB.
VOCALS_OVER_BAND_PASS_MEAN_DB = 1.5
VOCALS_OVER_MIXTURE_MEAN_DB = 6.0
LOSS_ALLOWED_DB = -0.5
REAL_TIME_LIMIT = 0.10


@dataclass(frozen=True)
class Clip:
    """A song with its truth: stems by name, each (channels, frames), and their sum."""

    name: str
    mixture: Audio
    stems: Mapping[str, Audio]
    sample_rate_hertz: int


def si_sdr_db(truth: Audio, estimate: Audio) -> float:
    """Scale-invariant signal-to-distortion ratio over all channels in dB. ``truth`` must not be silent."""
    target, guess = truth.ravel().astype(np.float64), estimate.ravel().astype(np.float64)
    scaled = (target @ guess) / (target @ target) * target
    error = guess - scaled
    return float(10 * np.log10((scaled @ scaled + 1e-20) / (error @ error + 1e-20)))


def sdr_db(truth: Audio, estimate: Audio) -> float:
    """Signal-to-distortion ratio over all channels in dB: energy of the truth over energy of the error."""
    error = truth.astype(np.float64) - estimate
    return float(10 * np.log10((np.sum(np.square(truth, dtype=np.float64)) + 1e-20) / (np.sum(error**2) + 1e-20)))


def band_pass(mixture: Audio, sample_rate_hertz: int) -> Audio:
    """What a listener with one equaliser would call the vocals: 180 Hz to 8 kHz, fourth order, zero phase."""
    sos = butter(4, BAND_PASS_HERTZ, "bandpass", fs=sample_rate_hertz, output="sos")
    return np.asarray(sosfiltfilt(sos, mixture, axis=1), dtype=np.float32)


def percussive_part(mixture: Audio) -> Audio:
    """librosa's harmonic/percussive separation at its defaults."""
    return np.stack([librosa.effects.percussive(channel) for channel in mixture])


def separated(clip: Clip, engine: str) -> dict[str, Audio]:
    """All four stems of a clip."""
    blocks = (clip.mixture[:, at : at + BLOCK_FRAMES] for at in range(0, clip.mixture.shape[1], BLOCK_FRAMES))
    parts = list(separate(blocks, clip.sample_rate_hertz, SeparationSettings(engine=engine)))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in FOUR_STEMS}


def musdb_clips(folder: Path, seconds: float | None = None) -> Iterator[Clip]:
    """Songs of a folder in MUSDB18-HQ's layout, in alphabetical order; those without all four stems are passed
    over.
    """
    for song in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = {name: _audio_file(song, name) for name in ("mixture", *FOUR_STEMS)}
        if any(path is None for path in files.values()):
            continue
        read = {name: _read(path, seconds) for name, path in files.items() if path is not None}
        rate = next(iter(read.values()))[1]
        yield Clip(song.name, read["mixture"][0], {name: read[name][0] for name in FOUR_STEMS}, rate)


def demo_clips(seeds: range, seconds: float) -> Iterator[Clip]:
    """Demo songs without pathologies."""
    for seed in seeds:
        demo = synthesise(seed, seconds)
        yield Clip(f"demo {seed}", demo.clean, demo.stems, demo.sample_rate_hertz)


def judge(clip: Clip, engine: str) -> list[Row]:
    """All comparisons of one clip; stems that are silent in it are left out."""
    ours = separated(clip, engine)
    rivals = {
        ("vocals", "mixture"): (clip.mixture, None),
        ("vocals", "band-pass"): (band_pass(clip.mixture, clip.sample_rate_hertz), 0.0),
        ("drums", "mixture"): (clip.mixture, 0.0),
        ("drums", "HPSS"): (percussive_part(clip.mixture), 0.0),
        ("bass", "mixture"): (clip.mixture, LOSS_ALLOWED_DB),
        ("other", "mixture"): (clip.mixture, LOSS_ALLOWED_DB),
    }
    rows = []
    for (stem, rival), (theirs, goal) in rivals.items():
        truth = clip.stems[stem]
        if not np.any(truth):
            continue
        title = f"{clip.name}: {stem} over {rival}"
        rows.append(_compared(title, si_sdr_db(truth, ours[stem]), si_sdr_db(truth, theirs), "dB SI-SDR", goal))
        rows.append(_compared(title, sdr_db(truth, ours[stem]), sdr_db(truth, theirs), "dB SDR", None))
    return rows


def summarise(rows: list[Row]) -> list[Row]:
    """Means over clips of each comparison, with the goals that hold on average."""
    goals = {
        "vocals over band-pass": VOCALS_OVER_BAND_PASS_MEAN_DB,
        "vocals over mixture": VOCALS_OVER_MIXTURE_MEAN_DB,
    }
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.name.split(": ", 1)[1], row.unit), []).append(row)
    return [
        _compared(
            f"mean: {name}",
            float(np.mean([row.ours for row in group])),
            float(np.mean([row.theirs for row in group if row.theirs is not None])),
            unit,
            goals.get(name) if unit == "dB SI-SDR" else None,
        )
        for (name, unit), group in groups.items()
    ]


def speed(clip: Clip, engine: str) -> Row:
    """Processor time per second of audio on one thread of numpy; the kernels are warm."""
    start = time.process_time()
    separated(clip, engine)
    factor = (time.process_time() - start) * clip.sample_rate_hertz / clip.mixture.shape[1]
    return Row(
        f"{clip.name}: processor time", factor, None, None, "of real time", REAL_TIME_LIMIT, factor <= REAL_TIME_LIMIT
    )


def _compared(name: str, ours: float, theirs: float, unit: str, goal: float | None) -> Row:
    gain = ours - theirs
    return Row(name, ours, theirs, 10 ** (gain / 10), unit, goal, None if goal is None else gain >= goal)


def _audio_file(song: Path, name: str) -> Path | None:
    return next((path for path in (song / f"{name}.wav", song / f"{name}.flac") if path.exists()), None)


def _read(path: Path, seconds: float | None) -> tuple[Audio, int]:
    rate = soundfile.info(path).samplerate
    audio, rate = soundfile.read(path, int(seconds * rate) if seconds else -1, dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.T), rate


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: list[str] | None = None) -> int:
    """Prints all rows; 0 where every goal holds."""
    parser = options_of_every_benchmark(__doc__)
    parser.add_argument("--engine", default="spectral")
    parser.add_argument("--truth", type=Path, help="folder of songs in MUSDB18-HQ's layout")
    parser.add_argument("--seeds", type=_seeds, default=range(100, 108), help="of demo songs, as FIRST-LAST")
    options = parser.parse_args(arguments)
    seconds = QUICK_SECONDS if options.quick else DEMO_SECONDS
    clips = list(demo_clips(options.seeds[:2] if options.quick else options.seeds, seconds))
    if options.truth:
        clips += list(musdb_clips(options.truth, QUICK_SECONDS if options.quick else None))
    rows = [row for clip in clips for row in judge(clip, options.engine)]
    rows += summarise(rows)
    rows.append(speed(clips[0], options.engine))
    for row in rows:
        print(json.dumps(row.__dict__) if options.json else _line(row))
    return exit_code(rows)


def _line(row: Row) -> str:
    theirs = "" if row.theirs is None else f"{row.theirs:8.2f}"
    goal = "" if row.goal is None else f"goal {row.goal:+.2f} {'holds' if row.holds else 'MISSED'}"
    return f"{row.name:48s} {row.ours:8.2f} {theirs:8s} {row.unit:12s} {goal}"


if __name__ == "__main__":
    sys.exit(main())
