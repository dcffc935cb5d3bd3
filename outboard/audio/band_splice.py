"""A new upper band under an old lower one: levels matched, in step, and without a notch where they meet.

Somebody draws audio that resembles a recording below its cutoff and goes on above it (a neural network, say): late by
some samples, at another level, with phases of its own. What is added to the recording for its upper band is computed
on short spectra (2048 frames, hops of 512, square root of Hann):

- the drawn audio is shifted by the lag at which both correlate best below the cutoff, if they do at all;
- it is scaled so that both have the same energy in the octave below the cutoff;
- in the `FADE_HERTZ` below the cutoff the recording fades out and the drawn audio in, bin by bin; there the drawn
  audio's phase is turned to the recording's, less and less towards the cutoff, so that both add up and never cancel;
- in no spectrum is the new band denser, in energy per hertz, than the recording's octave below the cutoff: what is
  silent stays silent.

The difference to the recording is passed through a linear-phase high-pass whose stop band, at least 100 dB down, ends
`SEAM_HERTZ` below the cutoff: what lies beneath is the recording's own by construction, whatever was drawn.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import signal

Audio = NDArray[np.float32]
Spectra = NDArray[np.complex64]

SAMPLE_RATE_HERTZ = 48_000
WINDOW_FRAMES = 2048
HOP_FRAMES = 512
FADE_HERTZ = 400.0
SEAM_HERTZ = 800.0
"""Below the cutoff minus this nothing is changed."""
STOPBAND_DB = 115.0
LARGEST_LAG_FRAMES = 64
LEAST_CORRELATION = 0.3
LARGEST_GAIN_DB = 20.0
_FADED_BINS = 64
_TINY = 1e-20


def high_pass_taps(cutoff_hertz: float) -> NDArray[np.float64]:
    """The last filter: stop band up to the seam, pass band from where the fade begins; odd length."""
    width = SEAM_HERTZ - FADE_HERTZ
    count, beta = signal.kaiserord(STOPBAND_DB, width / (SAMPLE_RATE_HERTZ / 2.0))
    middle = cutoff_hertz - FADE_HERTZ - width / 2.0
    taps: NDArray[np.float64] = signal.firwin(
        count | 1, middle, window=("kaiser", beta), pass_zero=False, fs=SAMPLE_RATE_HERTZ
    )
    return taps


def low_pass_taps(cutoff_hertz: float) -> NDArray[np.float64]:
    """What takes away all above the cutoff, for who draws must not take a codec's remains for music; odd length."""
    count, beta = signal.kaiserord(80.0, FADE_HERTZ / (SAMPLE_RATE_HERTZ / 2.0))
    middle = cutoff_hertz - FADE_HERTZ / 2.0
    taps: NDArray[np.float64] = signal.firwin(count | 1, middle, window=("kaiser", beta), fs=SAMPLE_RATE_HERTZ)
    return taps


def in_step(drawn: Audio, original: Audio, cutoff_hertz: float) -> Audio:
    """The drawn audio at the original's time and level, channel by channel.

    Args:
        drawn, original: (channels, frames) at 48 kHz.
        cutoff_hertz: where the original ends.

    Returns:
        (channels, frames); silence where either has nothing below the cutoff.
    """
    edges = np.array([cutoff_hertz / 2.0, cutoff_hertz - SEAM_HERTZ]) / (SAMPLE_RATE_HERTZ / drawn.shape[1])
    band = slice(round(edges[0]), round(edges[1]))
    given = np.zeros_like(drawn)
    for row, (one, other) in enumerate(zip(drawn, original, strict=True)):
        spectra = [scipy.fft.rfft(audio)[band] for audio in (one, other)]
        energies = [float(np.sum(np.abs(spectrum, dtype=np.float64) ** 2)) for spectrum in spectra]
        if min(energies) <= _TINY:
            continue
        gain = min((energies[1] / energies[0]) ** 0.5, 10.0 ** (LARGEST_GAIN_DB / 20.0))
        given[row] = np.float32(gain) * _shifted(one, _lag(spectra[0], spectra[1], band, drawn.shape[1], energies))
    return given


def _lag(drawn: Spectra, original: Spectra, band: slice, frames: int, energies: list[float]) -> int:
    """Frames by which the drawn audio is late; 0 where they do not correlate."""
    crossed = np.zeros(frames // 2 + 1, np.complex64)
    crossed[band] = drawn * np.conj(original)
    correlation = scipy.fft.irfft(crossed, frames) * (frames / 2.0 / (energies[0] * energies[1]) ** 0.5)
    lags = np.arange(-LARGEST_LAG_FRAMES, LARGEST_LAG_FRAMES + 1)
    best = int(np.argmax(correlation[lags]))
    return int(lags[best]) if correlation[lags[best]] >= LEAST_CORRELATION else 0


def _shifted(audio: Audio, late: int) -> Audio:
    moved = np.roll(audio, -late)
    if late > 0:
        moved[-late:] = 0.0
    elif late < 0:
        moved[:-late] = 0.0
    return moved


class Seam:
    """Where the two bands meet.

    Args:
        cutoff_hertz: where the original ends, above `SEAM_HERTZ` and below 24 kHz.
    """

    def __init__(self, cutoff_hertz: float) -> None:
        bins = np.arange(WINDOW_FRAMES // 2 + 1) * (SAMPLE_RATE_HERTZ / WINDOW_FRAMES)
        position = np.clip((bins - cutoff_hertz) / FADE_HERTZ + 1.0, 0.0, 1.0)
        self._weights = (0.5 - 0.5 * np.cos(np.pi * position)).astype(np.float32)
        self._fading = (self._weights > 0.0) & (self._weights < 1.0)
        self._below = (bins >= cutoff_hertz / 2.0) & (bins < cutoff_hertz - FADE_HERTZ)
        self._above = bins >= cutoff_hertz - FADE_HERTZ

    def difference(self, drawn: Spectra, original: Spectra) -> Spectra:
        """What is to be added to the original, all of shape (..., 1025)."""
        drawn = self._held(drawn, original)
        fading = self._fading
        turn = np.angle(original[..., fading] * np.conj(drawn[..., fading])) * (1.0 - self._weights[fading])
        drawn[..., fading] *= np.exp(1j * turn).astype(np.complex64)
        added: Spectra = self._weights * (drawn - original)
        return added

    def _held(self, drawn: Spectra, original: Spectra) -> Spectra:
        """No spectrum's new band denser than the octave below."""
        most = _energy(original[..., self._below]) / max(1, int(self._below.sum()))
        has = _energy(drawn[..., self._above]) / max(1, int(self._above.sum()))
        gain = np.sqrt(np.minimum(1.0, most / np.maximum(has, _TINY)))
        held: Spectra = drawn * gain[..., None].astype(np.float32)
        return held


def cross_faded(old: Spectra, new: Spectra, share: NDArray[np.float32]) -> Spectra:
    """From one drawing to another: their mixture, in every kilohertz and a half at the energy in between, so that two
    drawings that have nothing to do with each other do not dip, and equal ones do not rise.

    Args:
        old, new: (steps, channels, bins).
        share: of the new one, (steps,), 0 to 1.
    """
    part = share[:, None, None].astype(np.float32)
    mixed = (1.0 - part) * old + part * new
    starts = np.arange(0, mixed.shape[2], _FADED_BINS)
    wanted = (1.0 - part) * _energies(old, starts) + part * _energies(new, starts)
    gains = np.sqrt(wanted / np.maximum(_energies(mixed, starts), _TINY)).astype(np.float32)
    faded: Spectra = (mixed * np.repeat(gains, _FADED_BINS, axis=2)[:, :, : mixed.shape[2]]).astype(np.complex64)
    return faded


def _energies(spectra: Spectra, starts: NDArray[np.integer]) -> NDArray[np.float64]:
    power = spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2
    energies: NDArray[np.float64] = np.add.reduceat(power, starts, axis=2)
    return energies


def _energy(spectra: Spectra) -> NDArray[np.float64]:
    power = spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2
    energy: NDArray[np.float64] = power.sum(axis=-1)
    return energy
