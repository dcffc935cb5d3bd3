"""ffmpeg's own loudness meter (libavfilter's ``ebur128``, as PyAV carries it): what ours are held against.

It is a fourth true-peak meter, which no guard of ours watches: audio resampled to 192 kHz by libswresample. That takes
the audio as mirrored before its first frame (a click there reads 0.6 dB high) and never flushes its last ones, so peaks
are read with silence on both sides, as a converter hears them. Its readings have three decimals; a linear peak of 0.89
is told to 0.01 dB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

_OPTIONS = "metadata=1:peak=true"
_PREFIX = "lavfi.r128."
_WINDOW_HOPS = 30
_LEAST_LUFS = -120.7  # what it tells where there is nothing


@dataclass(frozen=True)
class FfmpegReading:
    """What ebur128 says of a signal.

    Attributes:
        integrated_lufs: gated loudness.
        loudness_range_lu: EBU Tech 3342.
        short_term_lufs: every 100 ms, the first at 3 s.
        true_peak_dbtp: the highest of all channels.
    """

    integrated_lufs: float
    loudness_range_lu: float
    short_term_lufs: tuple[float, ...]
    true_peak_dbtp: float


def read(audio: NDArray[np.floating], sample_rate_hertz: int) -> FfmpegReading:
    """Measures (channels, frames), one or two channels; may be mapped."""
    short_term: list[float] = []
    last: dict[str, str] = {}
    for last in _told(_hops(audio, sample_rate_hertz), audio.shape[0], sample_rate_hertz):
        short_term.append(max(float(last[f"{_PREFIX}S"]), _LEAST_LUFS))
    for padded in _told(_between_silences(audio, sample_rate_hertz), audio.shape[0], sample_rate_hertz):
        peak = float(padded[f"{_PREFIX}true_peak"])
    return FfmpegReading(
        float(last[f"{_PREFIX}I"]),
        float(last[f"{_PREFIX}LRA"]),
        tuple(short_term[_WINDOW_HOPS - 1 :]),
        20.0 * math.log10(peak) if peak > 0.0 else -math.inf,
    )


def _hops(audio: NDArray[np.floating], rate: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, audio.shape[1], rate // 10):
        yield np.array(audio[:, start : start + rate // 10], dtype=np.float32, order="C")


def _between_silences(audio: NDArray[np.floating], rate: int) -> Iterator[NDArray[np.float32]]:
    silence = np.zeros((audio.shape[0], rate // 10), dtype=np.float32)
    yield silence
    yield from _hops(audio, rate)
    yield silence
    yield silence


def _told(hops: Iterator[NDArray[np.float32]], channels: int, rate: int) -> Iterator[dict[str, str]]:
    """What the filter adds to each 100 ms."""
    layout = "mono" if channels == 1 else "stereo"
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="fltp", layout=layout, time_base=Fraction(1, rate))
    meter, sink = graph.add("ebur128", _OPTIONS), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    sent = 0
    for hop in hops:
        frame = av.AudioFrame.from_ndarray(hop, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, sent, Fraction(1, rate)
        sent += hop.shape[1]
        source.push(frame)
        yield from _pulled(sink)
    source.push(None)
    yield from _pulled(sink)


def _pulled(sink: av.filter.FilterContext) -> Iterator[dict[str, str]]:
    while True:
        try:
            frame = sink.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        told = {key: value for key, value in frame.metadata.items() if key.startswith(_PREFIX)}
        if f"{_PREFIX}S" in told:
            yield told
