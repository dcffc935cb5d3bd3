"""How far the sibilants of a voice stand out.

A frame of 85 ms is a sibilant where 4.5 to 12 kHz hold more energy than 300 Hz to 3 kHz. Their level (the 90th
percentile) is held against that of the voice (the 75th percentile at 300 Hz to 3 kHz over the frames that sound): sung
and spoken recordings lie 3 to 8 dB below it, the demo songs' voices up to it; from there on the index rises, and is 1
at 10 dB above. A ratio, so gain does not matter. None where fewer than three frames are sibilants. Of stems other than
voices it says how bright their brightest frames are.
"""

from __future__ import annotations

from array import array

import numpy as np

from outboard.audio.spectrum import SpectrumBatch

SIBILANT_HERTZ = (4_500.0, 12_000.0)
VOICED_HERTZ = (300.0, 3_000.0)
CLEAN_DB, SEVERE_DB = 0.0, 10.0  # sibilants over the voice
_FEWEST = 3
_ACTIVE_SHARE = 1e-3  # of the loudest frame


class SibilanceMeter:
    """Collects two levels per frame (24 frames a second at 48 kHz)."""

    def __init__(self) -> None:
        self._sibilant = array("f")
        self._voiced = array("f")

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        self._sibilant.extend(batch.power[:, batch.band(*SIBILANT_HERTZ)].sum(axis=1))
        self._voiced.extend(batch.power[:, batch.band(*VOICED_HERTZ)].sum(axis=1))

    @property
    def voice_power(self) -> float:
        """Power of the voice at 300 Hz to 3 kHz, of a frame (mean square); 0 for silence."""
        voiced = np.array(self._voiced)
        active = voiced > _ACTIVE_SHARE * np.max(voiced, initial=0.0)
        return float(np.percentile(voiced[active], 75)) if np.any(active) else 0.0

    @property
    def sibilance_index(self) -> float | None:
        """See the module; None where it cannot be measured."""
        sibilant, voiced = np.array(self._sibilant), np.array(self._voiced)
        voice = self.voice_power
        found = (sibilant > voiced) & (sibilant > _ACTIVE_SHARE * voice)
        if voice <= 0.0 or int(np.sum(found)) < _FEWEST:
            return None
        over_db = 10.0 * np.log10(np.percentile(sibilant[found], 90) / voice)
        return float(np.clip((over_db - CLEAN_DB) / (SEVERE_DB - CLEAN_DB), 0.0, 1.0))
