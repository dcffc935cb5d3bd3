"""Clean stems, what may be wrong with them, and how far a restored one is from the clean one.

Every pathology is a seeded function of a clean stem. A case is judged by two figures:

- log-spectral distance: root mean square over the bins from 20 Hz to 20 kHz (or a part of them) of the difference of
  levels in dB, mean over frames and channels; frames of 2048 samples at 48 kHz under a Hann window, every 512; a
  full-scale sine reads 0 dBFS, and what lies below -90 dBFS counts as -90 dBFS;
- the index of the diagnosis that matches the pathology.

A stem that was itself cut off (some recordings are) is judged up to its own end: above it there is no truth. A case
in which the pathology moved the stem by less than 0.3 dB is none: a low-pass at 15 kHz of a stem that ends at 11 kHz.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal

from outboard.audio.demo import PATHOLOGIES, synthesise
from outboard.audio.files import FileSpec, encode
from services.restorer.restore import diagnose
from services.restorer.settings import Diagnosis

Audio = NDArray[np.float32]

RATE = 48_000
FLOOR_DBFS = -90.0
LEAST_DAMAGE_DB = 0.3
LOWEST_HERTZ, HIGHEST_HERTZ = 20.0, 20_000.0
QUIETEST_DBFS = -50.0  # a stem whose excerpt is softer is no stem
_FRAME, _HOP = 2048, 512
_DEMO_ROLES = {"vocals": "lead_vocal", "drums": "drums", "bass": "bass", "other": "other"}


@dataclass(frozen=True)
class Stem:
    """A clean excerpt, float32 (2, frames) at 48 kHz.

    Attributes:
        end_hertz: up to where it is judged: 20 kHz, or where it was cut off itself.
    """

    name: str
    role: str
    audio: Audio
    end_hertz: float = HIGHEST_HERTZ


@dataclass(frozen=True)
class Case:
    """A clean stem with one fault."""

    stem: Stem
    pathology: str
    audio: Audio
    damage_db: float


def excerpt(path: Path, start_seconds: float, seconds: float) -> Audio:
    """A part of a file, stereo at 48 kHz, without decoding all of it."""
    with av.open(str(path)) as container:
        container.seek(int(start_seconds * 1e6))
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        parts: list[Audio] = []
        for frame in container.decode(audio=0):
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
            if sum(part.shape[1] for part in parts) >= seconds * RATE:
                break
    return np.ascontiguousarray(np.concatenate(parts, axis=1)[:, : int(seconds * RATE)], dtype=np.float32)


def stems(data: Path | None, seconds: float, seeds: tuple[int, ...] = (21, 22)) -> Iterator[Stem]:
    """Demo stems, and the loudest of six excerpts of every real one that `data` holds."""
    for seed in seeds:
        for name, audio in synthesise(seed, seconds + 2.0).stems.items():
            part = np.ascontiguousarray(audio[:, -int(seconds * RATE) :])
            yield _judged(Stem(f"demo {seed} {name}", _DEMO_ROLES[name], part))
    if data is None:
        return
    for path in sorted((data / "stems" / "potassium").glob("*.m4a")):
        parts = [excerpt(path, start, seconds) for start in (20, 60, 100, 140, 180, 220)]
        loudest = max(parts, key=lambda part: float(np.mean(part**2)))
        role = "lead_vocal" if path.stem.startswith("vox") else "backing_vocal" if "vox" in path.stem else ""
        if 10 * np.log10(np.mean(loudest**2) + 1e-12) >= QUIETEST_DBFS:
            yield _judged(Stem(f"potassium {path.stem}", role, loudest))
    for name, role in _DEMO_ROLES.items():
        path = data / "ground_truth" / "potassium" / f"{name}.flac"
        audio, _ = soundfile.read(path, int(seconds * RATE), 7 * RATE, dtype="float32", always_2d=True)
        yield _judged(Stem(f"ground truth {name}", role, np.ascontiguousarray(audio.T)))


def _judged(stem: Stem) -> Stem:
    found = diagnose(stem.audio, RATE)
    if found.brick_wall and found.bandwidth_hertz is not None:
        return replace(stem, end_hertz=min(HIGHEST_HERTZ, found.bandwidth_hertz))
    return stem


def low_pass(audio: Audio, cutoff_hertz: float) -> Audio:
    """A brick wall: 801 taps, Kaiser window."""
    taps = signal.firwin(801, cutoff_hertz, window=("kaiser", 9.0), fs=RATE)
    return np.asarray(signal.oaconvolve(audio, taps[None, :], mode="same", axes=1), dtype=np.float32)


def holes(audio: Audio, seed: int) -> Audio:
    """A third of the cells of 85 ms by 190 Hz emptied, as an over-eager mask does."""
    generator = np.random.default_rng(seed)
    _, _, spectra = signal.stft(audio, RATE, nperseg=2048, noverlap=1536)
    cells = generator.random((1, spectra.shape[1] // 8 + 1, spectra.shape[2] // 8 + 1)) < 0.35
    mask = np.kron(cells, np.ones((1, 8, 8)))[:, : spectra.shape[1], : spectra.shape[2]]
    _, emptied = signal.istft(spectra * np.where(mask > 0, 1e-3, 1.0), RATE, nperseg=2048, noverlap=1536)
    return np.asarray(emptied[:, : audio.shape[1]], np.float32)


def layer_tones(audio: Audio, seed: int, below_db: float = 35.0) -> Audio:
    """What a transposed convolution makes of a bias: one random pattern of 320 samples at 48 kHz, repeated."""
    pattern = np.random.default_rng(seed).standard_normal(320)
    pattern -= np.mean(pattern)
    pattern *= np.sqrt(np.mean(audio**2) * 10 ** (-below_db / 10) / np.mean(pattern**2))
    return np.asarray(audio + np.resize(pattern, audio.shape[1]), dtype=np.float32)


def mp3(audio: Audio, kbps: int) -> Audio:
    """Coded and decoded by LAME, in place."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coded.mp3"
        encode(path, [audio], RATE, FileSpec(container="mp3", bitrate_kbps=kbps))
        decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(decoded.T[:, : audio.shape[1]])


def clip(audio: Audio, by_db: float) -> Audio:
    """Cut flat, so far below the peak."""
    level = np.max(np.abs(audio)) * 10 ** (-by_db / 20)
    return np.clip(audio, -level, level).astype(np.float32)


def noise(audio: Audio, seed: int, snr_db: float) -> Audio:
    """White noise below the stem's mean power."""
    drawn = np.random.default_rng(seed).standard_normal(audio.shape)
    return np.asarray(audio + drawn * np.sqrt(np.mean(audio**2) * 10 ** (-snr_db / 10)), dtype=np.float32)


Spoil = Callable[[Audio, int], Audio]
FAULTS: dict[str, Spoil] = {
    "shimmer": lambda audio, seed: PATHOLOGIES["shimmer"](audio, RATE, seed, 0.8),
    "tones of a layer": layer_tones,
    "holes": holes,
    **{f"mp3 {kbps} kbit/s": lambda audio, seed, kbps=kbps: mp3(audio, kbps) for kbps in (64, 96, 128)},  # type: ignore[misc]
    **{f"low-pass {kilo} kHz": lambda audio, seed, kilo=kilo: low_pass(audio, 1e3 * kilo) for kilo in (8, 11, 15)},  # type: ignore[misc]
    **{f"clipped {db} dB": lambda audio, seed, db=db: clip(audio, db) for db in (3, 6)},  # type: ignore[misc]
    **{f"noise {db} dB": lambda audio, seed, db=db: noise(audio, seed, db) for db in (10, 20, 30)},  # type: ignore[misc]
}


def index_of(pathology: str, found: Diagnosis, stem: Stem) -> float:
    """The figure of a diagnosis that tells of a pathology; smaller is better."""
    kind = pathology.split()[0]
    if kind == "shimmer":
        return found.shimmer_index or 0.0
    if kind == "tones":
        return found.grid_tone_index or 0.0
    if kind == "holes":
        return found.spectral_hole_ratio or 0.0
    if kind == "clipped":
        return float(found.clipped_samples)
    if kind == "noise":
        return found.noise_floor_dbfs or FLOOR_DBFS
    # Of the band that is gone, in octaves of the stem's own; a coder leaves holes below it, too.
    gone = float(np.log2(stem.end_hertz / min(stem.end_hertz, found.bandwidth_hertz or stem.end_hertz)))
    return gone + (found.codec_hole_ratio or 0.0) if kind == "mp3" else gone


def cases(stem: Stem, seed: int = 7, faults: tuple[str, ...] = tuple(FAULTS)) -> Iterator[Case]:
    """Every fault on a stem; noise on voices only."""
    for name in faults:
        if name.startswith("noise") and not stem.role.endswith("vocal"):
            continue
        spoiled = FAULTS[name](stem.audio, seed)
        damage_db = distance_db(stem, spoiled)
        if damage_db >= LEAST_DAMAGE_DB:
            yield Case(stem, name, spoiled, damage_db)


def distance_db(stem: Stem, audio: Audio, low_hertz: float = LOWEST_HERTZ) -> float:
    """Log-spectral distance of audio from a clean stem, from a frequency on."""
    hertz = np.arange(_FRAME // 2 + 1) * (RATE / _FRAME)
    inside = (hertz >= low_hertz) & (hertz < stem.end_hertz)
    squared = (_levels(stem.audio)[:, :, inside] - _levels(audio)[:, :, inside]) ** 2
    return float(np.mean(np.sqrt(np.mean(squared, axis=2))))


def _levels(audio: Audio) -> NDArray[np.float32]:
    window = signal.get_window("hann", _FRAME).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(audio, _FRAME, axis=1)[:, ::_HOP]
    magnitude = np.abs(np.fft.rfft(frames * window)) * (2.0 / np.sum(window))
    return np.asarray(20.0 * np.log10(np.maximum(magnitude, 10.0 ** (FLOOR_DBFS / 20.0))), dtype=np.float32)


def matched_noise(stem: Stem, cutoff_hertz: float, seed: int = 1) -> Audio:
    """Noise above a cutoff, with the tilt (a line over log frequency) and the level of what the stem has there."""
    spectrum = np.fft.rfft(stem.audio.astype(np.float64))
    hertz = np.fft.rfftfreq(stem.audio.shape[1], 1.0 / RATE)
    inside = (hertz >= cutoff_hertz) & (hertz < stem.end_hertz)
    power = np.mean(np.abs(spectrum) ** 2, axis=0)
    edges = np.linspace(cutoff_hertz, stem.end_hertz, 41)
    pairs = list(pairwise(edges))
    levels = [10 * np.log10(np.mean(power[(hertz >= low) & (hertz < high)]) + 1e-20) for low, high in pairs]
    line = np.polyfit([np.log2((low + high) / 2) for low, high in pairs], levels, 1)
    shape = np.zeros(hertz.size)
    shape[inside] = 10.0 ** (np.polyval(line, np.log2(hertz[inside])) / 20.0)
    drawn = np.fft.rfft(np.random.default_rng(seed).standard_normal(stem.audio.shape)) * shape
    drawn *= np.sqrt(np.sum(power[inside]) / np.sum(np.mean(np.abs(drawn) ** 2, axis=0)))
    return np.fft.irfft(drawn, stem.audio.shape[1]).astype(np.float32)


def third_octave_errors_db(stem: Stem, audio: Audio, cutoff_hertz: float) -> list[float]:
    """Level of audio over that of the stem in the thirds of an octave between a cutoff and the stem's end.

    Levels are mean powers over the excerpt, and what lies below -90 dBFS counts as -90 dBFS.
    """
    hertz = np.fft.rfftfreq(stem.audio.shape[1], 1.0 / RATE)
    wanted, found = (np.mean(np.abs(np.fft.rfft(x.astype(np.float64))) ** 2, axis=0) for x in (stem.audio, audio))
    errors = []
    for middle in 1000.0 * 10.0 ** (np.arange(9, 14) / 10.0):
        low, high = middle / 10**0.05, middle * 10**0.05
        if low < cutoff_hertz or low >= stem.end_hertz:
            continue
        inside = (hertz >= low) & (hertz < min(high, stem.end_hertz))
        powers = [2.0 * np.sum(power[inside]) / stem.audio.shape[1] ** 2 for power in (found, wanted)]
        levels = [max(FLOOR_DBFS, 10.0 * np.log10(power + 1e-20)) for power in powers]
        errors.append(float(levels[0] - levels[1]))
    return errors
