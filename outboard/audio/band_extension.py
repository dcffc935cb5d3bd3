"""New top for a spectrum that a vocoder or a codec cut off: spectral band replication by modulation.

Multiplying by ``2 cos(2 pi w t)`` moves the spectrum by ±w. Above the cutoff c the signal holds nothing, so between
c and c + w only the copy of [c - w, c] arrives, and with 2 w the same band arrives between c + w and c + 2 w. A
linear-phase filter keeps just that, sloping down as music does (M. Dietz, L. Liljeryd, K. Kjörling, O. Kunz,
*Spectral band replication*, AES 112, 2002: what the ear expects up there is the envelope, in level and in time; the
fine structure matters little). The copy follows the original's level in time, its sides and its transients by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from outboard.audio.filters import Audio, to_float32

# Taps of the band filters: the edge at the cutoff is about 100 Hz wide at 48 kHz.
EXTENSION_TAPS = 1023
# Bands narrower than this are not worth a copy, and low sources sound like ring modulation.
_LOWEST_CUTOFF_HERTZ = 8_000.0


@dataclass(frozen=True)
class BandExtensionSettings:
    """All numbers of one band extension.

    Attributes:
        cutoff_hertz: where the spectrum ends, at least 8000.
        shift_hertz: width of the band that is copied; 5000 where None.
        gain_db: level of the copy at the cutoff against its source there.
        slope_db_per_octave: fall of the new band with frequency, negative, on top of the source's own.
    """

    cutoff_hertz: float
    shift_hertz: float = 5_000.0
    gain_db: float = 0.0
    slope_db_per_octave: float = -24.0

    def __post_init__(self) -> None:
        if not self.cutoff_hertz >= _LOWEST_CUTOFF_HERTZ:
            raise ValueError(f"cutoff_hertz must be at least {_LOWEST_CUTOFF_HERTZ:.0f}, not {self.cutoff_hertz}")
        if not 1_000.0 <= self.shift_hertz <= self.cutoff_hertz:
            raise ValueError(f"shift_hertz must be in 1000..{self.cutoff_hertz:.0f}, not {self.shift_hertz}")


class BandExtension:
    """One band extension at work: the delayed input plus its new top."""

    def __init__(self, settings: BandExtensionSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self.latency_frames = EXTENSION_TAPS // 2
        self._rate = sample_rate_hertz
        self._taps = [_copy_taps(settings, sample_rate_hertz, k) for k in (1, 2)]
        self._history = np.zeros((channels, EXTENSION_TAPS - 1))
        self._frame = -(EXTENSION_TAPS - 1)  # position of the history's first frame

    def process(self, block: Audio) -> Audio:
        """As many frames as ``block`` (channels, frames) has, ``latency_frames`` late."""
        joined = np.concatenate([self._history, np.asarray(block, np.float64)], axis=1)
        frames = block.shape[1]
        out = joined[:, self.latency_frames : self.latency_frames + frames].copy()
        # The phase is taken from the frame's own number, modulo the rate: exact however long the song is.
        numbers = (self._frame + np.arange(joined.shape[1])) % self._rate
        for k, taps in enumerate(self._taps, start=1):
            if not taps.any():
                continue
            carrier = 2.0 * np.cos(
                2.0 * np.pi * ((k * round(self.settings.shift_hertz) * numbers) % self._rate) / self._rate
            )
            for c in range(len(joined)):
                out[c] += signal.oaconvolve(joined[c] * carrier, taps, mode="valid")
        self._history = joined[:, frames:].copy()
        self._frame += frames
        return to_float32(out)


def _copy_taps(settings: BandExtensionSettings, sample_rate_hertz: int, copy: int) -> NDArray[np.float64]:
    """Linear-phase filter of the ``copy``-th copy: its band, with the gain and slope; all zero above Nyquist."""
    grid = np.fft.rfftfreq(8 * (EXTENSION_TAPS + 1), 1.0 / sample_rate_hertz)
    low = settings.cutoff_hertz + (copy - 1) * settings.shift_hertz
    octaves = np.log2(np.maximum(grid, 1.0) / settings.cutoff_hertz)
    gains = 10.0 ** ((settings.gain_db + settings.slope_db_per_octave * octaves) / 20.0)
    gains[(grid < low) | (grid >= low + settings.shift_hertz)] = 0.0
    half = EXTENSION_TAPS // 2
    taps: NDArray[np.float64] = (
        np.roll(np.fft.irfft(gains), half)[:EXTENSION_TAPS] * np.hanning(EXTENSION_TAPS + 2)[1:-1]
    )
    return taps
