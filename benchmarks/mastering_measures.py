"""What the mastering benchmarks are fed and measured with: a drum loop, excerpts of songs; punch,
crest of drums, sharpness, distortion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from outboard.audio.files import decode, to_stereo
from outboard.audio.loudness import integrated_loudness
from services.separator.engines import SeparationSettings
from services.separator.separate import separate

Audio = NDArray[np.float32]

RATE_HERTZ = 48000


def drum_loop() -> tuple[Audio, list[int]]:
    """Kicks and noise strokes in turn, four a second, over a chord; and where they begin."""
    generator = np.random.default_rng(3)
    time_s = np.arange(10 * RATE_HERTZ) / RATE_HERTZ
    mono = np.zeros(time_s.size)
    for hertz in (110.0, 220.0, 277.0, 330.0, 440.0):
        mono += 0.08 * np.sin(2 * np.pi * hertz * time_s)
    begins = [round(k * RATE_HERTZ / 4) for k in range(1, 36)]
    after = np.arange(RATE_HERTZ // 5) / RATE_HERTZ
    for number, begin in enumerate(begins):
        kick = np.sin(2 * np.pi * 50.0 * after)
        stroke = kick if number % 2 else 0.4 * generator.standard_normal(after.size)
        mono[begin : begin + after.size] += stroke * np.exp(-after * 20) * (1 - np.exp(-after * 2000))
    return np.tile(mono / np.abs(mono).max(), (2, 1)).astype(np.float32), begins


def onsets(audio: Audio) -> list[int]:
    """Up to two strokes a second, at least 150 ms apart: spectral flux, then the steepest rise of level nearby."""
    hop, size = 240, 1024
    mono = audio.mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(mono, (size // 2, size)), size)[::hop] * np.hanning(size)
    spectrum = np.log(np.abs(np.fft.rfft(frames, axis=1)) + 1e-3)
    flux = np.concatenate([[0.0], np.maximum(np.diff(spectrum, axis=0), 0.0).mean(axis=1)])
    chosen: list[int] = []
    for index in np.argsort(-flux):
        if len(chosen) >= 2 * mono.size / RATE_HERTZ or flux[index] < 2 * np.median(flux):
            break
        if 40 < index < flux.size - 40 and all(abs(index - other) > 30 for other in chosen):
            chosen.append(int(index))
    return [_steepest(mono, index * hop) for index in sorted(chosen)]


def _steepest(mono: Audio, near: int) -> int:
    power = np.convolve(mono[near - 960 : near + 960] ** 2, np.ones(144) / 144, "same")
    rise = np.log(power[144:] + 1e-7) - np.log(power[:-144] + 1e-7)
    return near - 960 + 72 + int(rise.argmax())


def drum_crest_db(audio: Audio, begins: list[int]) -> float:
    """Mean peak of the drums' onsets over the drums' RMS."""
    blocks = (audio[:, at : at + 65536] for at in range(0, audio.shape[1], 65536))
    parts = separate(blocks, RATE_HERTZ, SeparationSettings(engine="spectral"))
    drums = np.concatenate([part["drums"] for part in parts], axis=1)
    peaks = [float(np.abs(drums[:, begin - 240 : begin + 1440]).max()) for begin in begins]
    return 20 * float(np.log10(np.mean(peaks) / np.sqrt(np.square(drums, dtype=np.float64).mean())))


def sharpness_db(audio: Audio, begins: list[int]) -> float:
    """Mean rise of level above 1.5 kHz at the onsets."""
    high = sosfilt(butter(2, 1500.0, "highpass", fs=RATE_HERTZ, output="sos"), audio.mean(axis=0)) ** 2
    rises = [
        (high[begin - 48 : begin + 480].mean() + 1e-9) / (high[begin - 1440 : begin - 240].mean() + 1e-9)
        for begin in begins
        if begin >= 1440
    ]
    return float(np.mean(10 * np.log10(rises)))


def punch_db(audio: Audio, begins: list[int]) -> float:
    """Mean peak of the strokes over the level before them."""
    peaks = np.array([np.abs(audio[:, begin : begin + 1440]).max() for begin in begins])
    levels = np.array([np.sqrt(np.square(audio[:, begin - 3360 : begin - 480]).mean()) for begin in begins])
    return float(np.mean(20 * np.log10(peaks / levels)))


def distortion_db(audio: Audio) -> float:
    """Harmonics of 50 Hz over the tone, in the second second."""
    second = audio[0, RATE_HERTZ : 2 * RATE_HERTZ].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(second * np.hanning(RATE_HERTZ))) ** 2
    energy = [float(spectrum[50 * k - 3 : 50 * k + 4].sum()) for k in range(1, 30)]
    return 10 * float(np.log10(sum(energy[1:]) / energy[0]))


def lufs(audio: Audio) -> float:
    """Integrated loudness at `RATE_HERTZ`.

    Raises:
        ValueError: it has none.
    """
    loudness = integrated_loudness(audio, RATE_HERTZ)
    if loudness is None:
        raise ValueError("too quiet or too short to have a loudness")
    return loudness


def songs(data: Path, seconds: float) -> Iterator[tuple[str, Audio]]:
    """An excerpt of every song of the test data, a third of the way in, and the ground truth's mixture."""
    for path in sorted([*(data / "songs").glob("*.mp3"), *(data / "ground_truth").glob("*/mix*.flac")]):
        with decode(path, sample_rate_hertz=RATE_HERTZ) as file:
            start = max(0, min(file.frames // 3, file.frames - round(seconds * RATE_HERTZ)))
            excerpt = np.array(file.array[:, start : start + round(seconds * RATE_HERTZ)], dtype=np.float32)
        yield path.stem, to_stereo(excerpt)
