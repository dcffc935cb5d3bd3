"""What generative models do to songs, as seeded functions of severity.

Each function takes audio (2, frames), a seed and a severity from 0 (returned unchanged) to 1 (as bad as the worst
generated songs), and returns new audio of the same shape at about the same loudness. They model what is measured on
generated songs: metallic ringing between 8 and 12 kHz, a congested low middle, a brick-wall cutoff, sides that are
far too loud, and dynamics pressed flat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

Audio = npt.NDArray[np.float32]

SHIMMER_BAND_HERTZ = (8_000.0, 12_000.0)
MUD_BAND_HERTZ = (200.0, 500.0)
CUTOFF_HERTZ = 15_000.0


def shimmer(audio: Audio, sample_rate_hertz: int, seed: int, severity: float) -> Audio:
    """Metallic ringing: narrow peaks at 8 to 12 kHz that stay in place and follow the music's level.

    Half of the peaks stand on a fixed grid, as strided upsampling layers leave them; the others are free. Each is
    a slightly unsteady tone whose level follows the programme with a slow release, so that it rings on after
    every sound.
    """
    if severity <= 0:
        return audio.copy()
    rng = np.random.default_rng([seed, 11])
    frames = audio.shape[1]
    spacing = float(rng.choice((375.0, 500.0, 46.875 * 13)))
    grid = np.arange(*SHIMMER_BAND_HERTZ, spacing) + rng.uniform(0, spacing)
    free = rng.uniform(*SHIMMER_BAND_HERTZ, 5)
    places = np.concatenate((rng.choice(grid, 5, replace=False), free))
    time = np.arange(frames) / sample_rate_hertz
    programme = _followed_level(np.mean(audio, axis=0), sample_rate_hertz)
    # Against the programme above 1 kHz: 36 dB below at the least, 14 dB below at the worst, per tone.
    depth = 10.0 ** ((-36.0 + 22.0 * severity) / 20.0) * min(1.0, 8.0 * severity)
    added = np.zeros_like(audio)
    knots = np.arange(0, frames + 480, 480)
    for frequency in places:
        wander_turns = np.cumsum(rng.normal(0.0, 1.0, knots.size)) * 6.0 * 480 / sample_rate_hertz
        flutter = 1.0 + 0.35 * np.sin(2 * np.pi * rng.uniform(3, 9) * knots / sample_rate_hertz + rng.uniform(0, 6.28))
        level = np.interp(np.arange(frames), knots, depth * rng.uniform(0.6, 1.2) * flutter).astype(np.float32)
        turns = (frequency * time + np.interp(np.arange(frames), knots, wander_turns)) % 1.0
        phase = (2 * np.pi * turns).astype(np.float32)
        level *= programme
        in_phase, quadrature = level * np.sin(phase), level * np.cos(phase)
        balance, lead = rng.uniform(0.3, 1.0, 2), float(rng.uniform(-1.0, 1.0))
        added[0] += float(balance[0]) * in_phase
        added[1] += float(balance[1] * np.cos(lead)) * in_phase + float(balance[1] * np.sin(lead)) * quadrature
    return np.asarray(audio + added, dtype=np.float32)


def _followed_level(mono: Audio, sample_rate_hertz: int) -> Audio:
    """Level of the programme above 1 kHz: 5 ms attack, 150 ms release, linear."""
    sos = signal.butter(1, 1_000.0, "highpass", fs=sample_rate_hertz, output="sos")
    rectified = np.abs(signal.sosfilt(sos, mono))
    hop = max(1, sample_rate_hertz // 400)
    coarse = np.sqrt(np.add.reduceat(rectified**2, np.arange(0, mono.size, hop)) / hop)
    release = np.exp(-1.0 / (0.15 * 400))
    followed = np.empty_like(coarse)
    held = 0.0
    for index, value in enumerate(coarse):
        held = max(float(value), held * release)
        followed[index] = held
    followed = ndimage.uniform_filter1d(followed, 3)
    level = np.interp(np.arange(mono.size) / hop, np.arange(coarse.size) + 0.5, followed)
    return np.asarray(level, dtype=np.float32)


def mud(audio: Audio, sample_rate_hertz: int, seed: int, severity: float) -> Audio:
    """A congested low middle: 200 to 500 Hz raised by up to 8 dB and smeared over 120 ms."""
    if severity <= 0:
        return audio.copy()
    rng = np.random.default_rng([seed, 12])
    sos = signal.butter(2, MUD_BAND_HERTZ, "bandpass", fs=sample_rate_hertz, output="sos")
    band = signal.sosfilt(sos, audio, axis=1)
    time = np.arange(int(0.3 * sample_rate_hertz)) / sample_rate_hertz
    tail = rng.standard_normal((2, time.size)) * np.exp(-time / 0.06)
    tail /= np.sqrt(np.sum(tail**2, axis=1, keepdims=True))
    smear = signal.oaconvolve(band, tail, axes=1)[:, : audio.shape[1]]
    boost = 10.0 ** (8.0 * severity / 20.0) - 1.0
    return np.asarray(audio + boost * 0.8 * band + boost * 0.35 * smear, dtype=np.float32)


def low_pass(audio: Audio, sample_rate_hertz: int, seed: int, severity: float) -> Audio:
    """A brick wall at 15 kHz, as vocoders leave it; severity blends from 20 kHz down to it."""
    del seed
    if severity <= 0:
        return audio.copy()
    cutoff = 20_000.0 - (20_000.0 - CUTOFF_HERTZ) * severity
    if cutoff * 2 >= sample_rate_hertz * 0.98:
        return audio.copy()
    taps = signal.firwin(801, cutoff, window=("kaiser", 9.0), fs=sample_rate_hertz)
    return np.asarray(_convolved_same(audio, taps), dtype=np.float32)


def _convolved_same(audio: Audio, taps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    full = signal.oaconvolve(audio, taps[None, :], axes=1)
    start = (taps.size - 1) // 2
    return np.asarray(full[:, start : start + audio.shape[1]])


def hard_pan(audio: Audio, sample_rate_hertz: int, seed: int, severity: float) -> Audio:
    """Sides far too loud: side raised by up to 9 dB above 150 Hz, and four bands pushed to one edge each."""
    if severity <= 0:
        return audio.copy()
    rng = np.random.default_rng([seed, 13])
    middle, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2
    sos = signal.butter(1, 150.0, "highpass", fs=sample_rate_hertz, output="sos")
    side = side + (10.0 ** (9.0 * severity / 20.0) - 1.0) * signal.sosfilt(sos, side)
    edges = np.array([500.0, 900.0, 1_600.0, 2_800.0, 5_000.0])
    directions = rng.permutation([-1.0, 1.0, -1.0, 1.0])
    for low, high, direction in zip(edges[:-1], edges[1:], directions, strict=True):
        band_sos = signal.butter(2, [low * 1.05, high / 1.05], "bandpass", fs=sample_rate_hertz, output="sos")
        # Sum and difference equal in level is one edge; half of the band goes there.
        side = side + direction * 0.45 * severity * signal.sosfilt(band_sos, middle)
    return np.asarray(np.stack((middle + side, middle - side)), dtype=np.float32)


def squash(audio: Audio, sample_rate_hertz: int, seed: int, severity: float) -> Audio:
    """Dynamics pressed flat: a fast 4:1 compressor deep in the programme, then a limiter pushed by up to 6 dB."""
    del seed
    if severity <= 0:
        return audio.copy()
    hop = max(1, sample_rate_hertz // 1_000)
    starts = np.arange(0, audio.shape[1], hop)
    power = np.add.reduceat(np.max(audio.astype(np.float64) ** 2, axis=0), starts) / hop
    level_db = 10 * np.log10(ndimage.uniform_filter1d(power, 20) + 1e-10)
    programme_db = float(10 * np.log10(np.mean(audio.astype(np.float64) ** 2) * 2 + 1e-10))
    over_db = np.maximum(0.0, level_db - (programme_db - 9.0))
    gain_db = ndimage.uniform_filter1d(ndimage.minimum_filter1d(-over_db * 0.75 * severity, 11), 41)
    gain = 10 ** (np.interp(np.arange(audio.shape[1]), starts + hop / 2, gain_db) / 20)
    pressed = audio * gain
    pressed *= np.sqrt(np.mean(audio.astype(np.float64) ** 2) / (np.mean(pressed**2) + 1e-20))
    ceiling = float(np.max(np.abs(pressed))) * 10 ** (-6.0 * severity / 20)
    return np.asarray(limited(pressed, ceiling, sample_rate_hertz), dtype=np.float32)


def limited(audio: npt.NDArray[np.float64], ceiling: float, sample_rate_hertz: int) -> npt.NDArray[np.float64]:
    """Sample-peak limiter with 2 ms look-ahead and 40 ms release, for making demos (not for masters)."""
    ahead = max(1, int(0.002 * sample_rate_hertz))
    wanted = np.minimum(1.0, ceiling / (np.max(np.abs(audio), axis=0) + 1e-12))
    held = ndimage.minimum_filter1d(wanted, 2 * ahead + 1)
    released = ndimage.minimum_filter1d(held, int(0.02 * sample_rate_hertz))
    gain = np.minimum(ndimage.uniform_filter1d(released, int(0.02 * sample_rate_hertz)), 1.0)
    gain = np.minimum(gain, ndimage.uniform_filter1d(held, ahead))
    return np.asarray(np.clip(audio * gain, -ceiling, ceiling))


Pathology = Callable[[Audio, int, int, float], Audio]
PATHOLOGIES: Mapping[str, Pathology] = {
    # in the order in which they are put on a song
    "shimmer": shimmer,
    "mud": mud,
    "hard_pan": hard_pan,
    "squash": squash,
    "low_pass": low_pass,
}


def apply(audio: Audio, sample_rate_hertz: int, seed: int, severities: Mapping[str, float]) -> Audio:
    """Put several pathologies on, always in the order of `PATHOLOGIES`; raises KeyError for an unknown name."""
    for name in severities:
        PATHOLOGIES[name]
    for name, pathology in PATHOLOGIES.items():
        audio = pathology(audio, sample_rate_hertz, seed, severities.get(name, 0.0))
    return audio
