"""How well a separation engine separates, beside what one gets for nothing: the mixture itself, a band-pass, HPSS's
percussive part.

    python -m benchmarks.separation [--engine spectral] [--speed balanced] [--truth FOLDER] [--seeds 100-107|none]
                                    [--output FOLDER] [--quick] [--json]

``--engine`` is any that the separator offers here. ``--truth`` is a folder of songs in MUSDB18-HQ's layout
(``SONG/{mixture,vocals,drums,bass,other}.wav`` or .flac, also below ``train`` and ``test``; a mixture that is not there
is the stems' sum); the demo songs of the given seeds are judged too.

``--output`` writes ``scores.json``, ``scores.md`` and ``scores.svg``: SDR, SIR and SAR per stem as museval defines them
(:mod:`benchmarks.bss_eval`), and SI-SDR, of the engine and of the mixture in its place. The rows that are printed
compare SI-SDR (Le Roux et al. 2019) and SDR (the plain ratio of the stem's energy to the error's), both over all
channels and the clip's whole length. SI-SDR forgives a wrong gain, SDR does not. A row's ``ratio`` is ours over theirs,
as a power ratio for decibels.
"""

from __future__ import annotations

import argparse
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
from benchmarks.separation_scores import score, si_sdr_db, write_scores
from outboard.audio.demo import synthesise
from outboard.audio.stems import FOUR_STEMS
from outboard.settings import Settings
from services.separator.deployment import engines
from services.separator.engines import SeparationSettings, SongFacts
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


def separated(clip: Clip, engine: str, speed: str = "balanced") -> dict[str, Audio]:
    """All four stems of a clip, by an engine that knows the song's mean and deviation, as in the pipeline."""
    blocks = (clip.mixture[:, at : at + BLOCK_FRAMES] for at in range(0, clip.mixture.shape[1], BLOCK_FRAMES))
    mono = clip.mixture.mean(axis=0, dtype=np.float64)
    facts = SongFacts(mean=float(mono.mean()), deviation=float(mono.std(ddof=1)))
    settings = SeparationSettings(engine=engine, speed=speed)
    parts = list(separate(blocks, clip.sample_rate_hertz, settings, facts, engines=engines(Settings())))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in FOUR_STEMS}


def musdb_clips(folder: Path, seconds: float | None = None) -> Iterator[Clip]:
    """Songs of a folder in MUSDB18-HQ's layout, in alphabetical order; those without all four stems are passed
    over.
    """
    parents = [folder, *(folder / half for half in ("test", "train") if (folder / half).is_dir())]
    for song in sorted(path for parent in parents for path in parent.iterdir() if path.is_dir()):
        files = {name: _audio_file(song, name) for name in ("mixture", *FOUR_STEMS)}
        if any(files[name] is None for name in FOUR_STEMS):
            continue
        read = {name: _read(path, seconds) for name, path in files.items() if path is not None}
        stems = {name: read[name][0] for name in FOUR_STEMS}
        mixture = read["mixture"][0] if "mixture" in read else np.sum(list(stems.values()), axis=0, dtype=np.float32)
        yield Clip(song.name, mixture, stems, read["vocals"][1])


def demo_clips(seeds: range, seconds: float) -> Iterator[Clip]:
    """Demo songs without pathologies."""
    for seed in seeds:
        demo = synthesise(seed, seconds)
        yield Clip(f"demo {seed}", demo.clean, demo.stems, demo.sample_rate_hertz)


def judge(clip: Clip, ours: Mapping[str, Audio]) -> list[Row]:
    """All comparisons of one clip; stems that are silent in it are left out."""
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


def processor_time(clip: Clip, engine: str, speed: str) -> Row:
    """Processor time per second of audio; kernels and models are warm. The goal is that of the weights-free engine."""
    start = time.process_time()
    separated(clip, engine, speed)
    factor = (time.process_time() - start) * clip.sample_rate_hertz / clip.mixture.shape[1]
    goal = REAL_TIME_LIMIT if engine == "spectral" else None
    holds = None if goal is None else factor <= goal
    return Row(f"{clip.name}: processor time", factor, None, None, "of real time", goal, holds)


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
    if text == "none":
        return range(0)
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: list[str] | None = None) -> int:
    """Prints all rows, and writes the scores where that is asked for; 0 where every goal holds."""
    options = _options().parse_args(arguments)
    seconds = QUICK_SECONDS if options.quick else DEMO_SECONDS
    clips = list(demo_clips(options.seeds[:2] if options.quick else options.seeds, seconds))
    if options.truth:
        clips += list(musdb_clips(options.truth, QUICK_SECONDS if options.quick else None))
    if not clips:
        print("nothing to judge: no demo seeds, and no folder of songs with all four stems", file=sys.stderr)
        return 2
    rows, scores = [], []
    for clip in clips:
        ours = separated(clip, options.engine, options.speed)
        rows += judge(clip, ours)
        if options.output:
            mixture = dict.fromkeys(FOUR_STEMS, clip.mixture)
            for name, stems in ((options.engine, ours), ("mixture", mixture)):
                scores += score(clip.name, name, clip.stems, stems, clip.sample_rate_hertz)
    if options.output:
        write_scores(scores, options.output)
    rows += summarise(rows)
    rows.append(processor_time(clips[0], options.engine, options.speed))
    for row in rows:
        print(json.dumps(row.__dict__) if options.json else _line(row))
    return exit_code(rows)


def _options() -> argparse.ArgumentParser:
    parser = options_of_every_benchmark(__doc__)
    parser.add_argument("--engine", default="spectral", help="as `outboard separate --engine`")
    parser.add_argument("--speed", default="balanced", choices=("exact", "balanced", "fast"))
    parser.add_argument("--truth", type=Path, help="folder of songs in MUSDB18-HQ's layout")
    parser.add_argument("--seeds", type=_seeds, default=range(100, 108), help="of demo songs, as FIRST-LAST, or none")
    parser.add_argument("--output", type=Path, help="folder for scores.json, scores.md and scores.svg")
    return parser


def _line(row: Row) -> str:
    theirs = "" if row.theirs is None else f"{row.theirs:8.2f}"
    goal = "" if row.goal is None else f"goal {row.goal:+.2f} {'holds' if row.holds else 'MISSED'}"
    return f"{row.name:48s} {row.ours:8.2f} {theirs:8s} {row.unit:12s} {goal}"


if __name__ == "__main__":
    sys.exit(main())
