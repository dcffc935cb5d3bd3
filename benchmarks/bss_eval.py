"""BSS Eval version 4: how far an estimated stem is from the true one, and whether neighbours or artefacts are to blame.

What museval computes (Vincent, Gribonval & Févotte 2006, "Performance Measurement in Blind Audio Source Separation",
for images; Stöter, Liutkus & Ito 2018, "The 2018 Signal Separation Evaluation Campaign", section 3). An estimate ``e``
of source ``j`` is projected on all that filters of 512 taps can make of the true sources, one set of filters for the
whole song, and then taken apart second by second:

    true     s_j                                    spatial   P_j e - s_j
    interference  P_all e - P_j e                   artefacts e - P_all e

    SDR = true / (spatial + interference + artefacts)    SIR = (true + spatial) / interference
    SAR = (true + spatial + interference) / artefacts    ISR = true / spatial

as ratios of energy over all channels, in dB; a stem's score is the median over the seconds in which no source and no
estimate is silent. Written anew because museval 0.4.1 brings a data set's client, a decoder and pandas along, and
transforms the whole song at once in double precision; tests hold this to mir_eval and to figures of museval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

TAPS = 512
_CORRELATION_FRAMES = 1 << 16
# Of the mean energy, added to every delayed source's own: channels that are equal, or all but silent above a cutoff,
# would leave the filters undetermined. 100 dB below the song, so no score that one can hear depends on it.
_RIDGE = 1e-10

Signals = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """One stem's scores in dB, each (seconds,), NaN where something is silent."""

    sdr: Signals
    isr: Signals
    sir: Signals
    sar: Signals

    def median(self, name: str) -> float:
        """Of one of the four, over the seconds that have it; NaN where none has."""
        values: Signals = getattr(self, name)
        known = values[~np.isnan(values)]
        return float(np.median(known)) if known.size else float("nan")


def bss_eval(truths: Signals, estimates: Signals, window_frames: int) -> list[Scores]:
    """Scores of each estimate against the truth at the same place.

    Args:
        truths, estimates: (stems, channels, frames), of the same shape; no stem silent throughout.
        window_frames: over which energies are compared: a second, or the whole signal.
    """
    stems, channels, frames = truths.shape
    if truths.shape != estimates.shape:
        raise ValueError(f"truths {truths.shape} and estimates {estimates.shape} differ")
    sources = truths.reshape(stems * channels, frames)
    guesses = estimates.reshape(stems * channels, frames)
    gram, onto = _correlations(sources, guesses)
    together = _filters(gram, onto).reshape(len(sources), TAPS, stems, channels)
    alone = np.stack([_own_filters(gram, onto, stem, channels) for stem in range(stems)])
    seconds = [
        _window_scores(truths[..., at : at + window_frames], estimates[..., at : at + window_frames], together, alone)
        for at in _starts(frames, window_frames)
    ]
    table = np.array(seconds).transpose(1, 2, 0)
    return [Scores(*table[stem]) for stem in range(stems)]


def _starts(frames: int, window_frames: int) -> range:
    """Whole windows only, or the one that there is."""
    return range(0, max(frames - window_frames, 0) + 1, window_frames)


def _own_filters(gram: Signals, onto: Signals, stem: int, channels: int) -> Signals:
    """Filters (channels, taps, channels) that make the most of one source alone."""
    own = slice(stem * channels * TAPS, (stem + 1) * channels * TAPS)
    wanted = onto[own, stem * channels : (stem + 1) * channels]
    return _filters(gram[own, own], wanted).reshape(channels, TAPS, channels)


def _filters(gram: Signals, onto: Signals) -> Signals:
    """Least squares by the normal equations."""
    ridge = _RIDGE * float(np.mean(np.diag(gram)))
    solved: Signals = cho_solve(cho_factor(gram + ridge * np.eye(len(gram))), onto)
    return solved


def _window_scores(truths: Signals, estimates: Signals, together: Signals, alone: Signals) -> Signals:
    """(stems, 4) in the order of :class:`Scores`, of one window; what is before it is silence to the filters."""
    stems, channels, frames = truths.shape
    scores = np.full((stems, 4), np.nan)
    if not (np.any(truths, axis=(1, 2)).all() and np.any(estimates, axis=(1, 2)).all()):
        return scores
    size = scipy.fft.next_fast_len(frames + TAPS - 1, real=True)
    spectra = scipy.fft.rfft(truths, size)
    responses = scipy.fft.rfft(together, size, axis=1)
    padding = ((0, 0), (0, TAPS - 1))
    for stem in range(stems):
        own = np.einsum("df,dfc->cf", spectra[stem], scipy.fft.rfft(alone[stem], size, axis=1))
        every = np.einsum("df,dfc->cf", spectra.reshape(stems * channels, -1), responses[:, :, stem])
        own, every = (scipy.fft.irfft(part, size)[:, : frames + TAPS - 1] for part in (own, every))
        true, guess = np.pad(truths[stem], padding), np.pad(estimates[stem], padding)
        scores[stem] = (
            _decibels(true, guess - true),
            _decibels(true, own - true),
            _decibels(own, every - own),
            _decibels(every, guess - every),
        )
    return scores


def _decibels(signal: Signals, error: Signals) -> float:
    energy = float(np.sum(error**2))
    return float(10.0 * np.log10(float(np.sum(signal**2)) / energy)) if energy > 0.0 else float("inf")


def _correlations(sources: Signals, guesses: Signals) -> tuple[Signals, Signals]:
    """Inner products of the delayed sources, (sources*taps, sources*taps), and of those with the guesses.

    A source delayed by a and another by b have the inner product that the two have at a lag of a - b: all that is
    needed are the correlations at lags below the number of taps.
    """
    count = len(sources)
    lags = np.zeros((count, count + len(guesses), 2 * TAPS - 1))
    for part in _correlated(sources, np.concatenate([sources, guesses])):
        lags += part
    gram = np.empty((count, TAPS, count, TAPS))
    delays = np.arange(TAPS)
    for i in range(count):
        for j in range(count):
            gram[i, :, j, :] = lags[i, j][TAPS - 1 + delays[:, None] - delays[None, :]]
    onto = lags[:, count:, TAPS - 1 :].transpose(0, 2, 1)
    return gram.reshape(count * TAPS, count * TAPS), onto.reshape(count * TAPS, len(guesses))


def _correlated(left: Signals, right: Signals) -> Iterator[Signals]:
    """Parts of sum over t of left[i, t] * right[j, t + lag], lags from -(TAPS - 1) to TAPS - 1, block by block."""
    frames = left.shape[1]
    size = scipy.fft.next_fast_len(_CORRELATION_FRAMES + 2 * (TAPS - 1), real=True)
    padded = np.pad(right, ((0, 0), (TAPS - 1, TAPS - 1)))
    for at in range(0, frames, _CORRELATION_FRAMES):
        # The right block begins TAPS - 1 frames before the left one.
        here = scipy.fft.rfft(left[:, at : at + _CORRELATION_FRAMES], size)
        there = scipy.fft.rfft(padded[:, at : at + _CORRELATION_FRAMES + 2 * (TAPS - 1)], size)
        yield np.stack([scipy.fft.irfft(np.conj(one) * there, size)[:, : 2 * TAPS - 1] for one in here])
