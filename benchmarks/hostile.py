"""Signals that break limiters and meters, and files to deliver them as."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.master.settings import DeliverableSpec

HOSTILE = ("square", "clicks", "noise_bursts", "signs", "inter_sample_6_db", "dc_steps")
"""Full-scale squares, clicks, bursts of noise, random signs, inter-sample peaks of 6 dB, steps of DC."""

LOSSLESS_RATES_HERTZ = (44100, 48000, 96000)
LOSSY_RATES_HERTZ = (44100, 48000)
_SHIFT_FRAMES = 3  # the right channel is the left one, a little later


def hostile(name: str, rate: int, seconds: float = 2.0) -> NDArray[np.float32]:
    """One of them in stereo, at full scale and over."""
    time_s = np.arange(round(seconds * rate)) / rate
    generator = np.random.default_rng(5)
    mono = np.zeros(time_s.size)
    if name == "square":
        mono = np.sign(np.sin(2 * np.pi * 997.0 * time_s + 0.1))
    elif name == "clicks":
        mono[::4801], mono[1::9001] = 1.0, -1.0
    elif name == "noise_bursts":
        mono = generator.standard_normal(time_s.size) * (np.sin(2 * np.pi * 4.0 * time_s) > 0)
    elif name == "signs":
        mono = np.sign(generator.standard_normal(time_s.size))
    elif name == "inter_sample_6_db":
        for centre in range(1000, time_s.size - 100, 5000):
            mono[centre - 30 : centre + 30] = np.sign(np.sinc(np.arange(-30, 30) + 0.5))
    elif name == "dc_steps":
        mono = np.where(time_s % 1.0 > 0.5, 1.0, -1.0)
    else:
        raise ValueError(f"no hostile signal {name!r}: {', '.join(HOSTILE)}")
    return np.stack([mono, np.roll(mono, _SHIFT_FRAMES)]).astype(np.float32)


def every_file() -> tuple[DeliverableSpec, ...]:
    """Each kind of file at each rate that it may have."""
    lossless = [("wav", "16"), ("wav", "24"), ("wav", "32f"), ("flac", "16"), ("flac", "24")]
    return tuple(
        DeliverableSpec(f"{container}-{depth}-{rate}", container, rate, depth)
        for rate in LOSSLESS_RATES_HERTZ
        for container, depth in lossless
    ) + tuple(
        DeliverableSpec(f"mp3-{kbps}-{rate}", "mp3", rate, bitrate_kbps=kbps)
        for rate in LOSSY_RATES_HERTZ
        for kbps in (320, 128)
    )
