"""The numbers of a sound profile that a master starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

OFFSET_HERTZ = np.array([35.0, 110.0, 316.0, 1000.0, 3464.0, 9800.0])
"""Where a profile may want another spectrum than the common one."""


@dataclass(frozen=True)
class MasterProfile:
    """What a preset may set for the master, each by its name with ``master.`` in front.

    Attributes:
        tolerance_db: deviation of the smoothed spectrum from its target that is taste, not fault.
        correction: share of what lies beyond the tolerance that is taken back.
        equalizer_limit_db: furthest gain of the equaliser.
        sub_boost_limit_db: furthest lift below 60 Hz, where generated songs hold noise and nothing else.
        air_boost_limit_db: furthest lift above 6 kHz, for the same reason.
        target_sub_db … target_air_db: what the profile's spectrum has more (or less) than the common target around 35,
            110, 316, 1000, 3464 and 9800 Hz; straight lines over log frequency between them.
        mud_cut_db, shimmer_cut_db: cut at an index of 1.
        harsh_cut_db: furthest cut of 3 to 6 kHz at its moments.
        index_tolerance: pathology index up to which nothing is cut (released recordings reach it).
        compressor_ratio: of the gentle multiband compression.
        lively_crest_db: crest factor from which there are dynamics to spend.
        lively_range_lu: loudness range above which a song is evened out a little.
        parallel_mix: share of a heavily compressed copy; 0: none.
        punch_attack_db, punch_sustain_db: lift of onsets and fall of what rings, for loud masters.
        saturation_mix: share of saturation above the bass, for loud masters; 0: none.
        mono_below_hertz: below this a stereo song is mono; 0: nowhere.
        side_limit_db: side over mid from which a song is narrowed.
    """

    tolerance_db: float = 3.0
    correction: float = 0.5
    equalizer_limit_db: float = 3.0
    sub_boost_limit_db: float = 0.0
    air_boost_limit_db: float = 1.0
    target_sub_db: float = 0.0
    target_low_db: float = 0.0
    target_low_mid_db: float = 0.0
    target_mid_db: float = 0.0
    target_presence_db: float = 0.0
    target_air_db: float = 0.0
    mud_cut_db: float = 3.0
    shimmer_cut_db: float = 3.0
    harsh_cut_db: float = 2.0
    index_tolerance: float = 0.15
    compressor_ratio: float = 1.5
    lively_crest_db: float = 15.0
    lively_range_lu: float = 9.0
    parallel_mix: float = 0.0
    punch_attack_db: float = 7.0
    punch_sustain_db: float = -1.0
    saturation_mix: float = 0.0
    mono_below_hertz: float = 120.0
    side_limit_db: float = -5.0

    @classmethod
    def from_values(cls, values: Mapping[str, float]) -> MasterProfile:
        """The defaults, with what a preset sets for the master in their place; other keys belong to other stages."""
        known = {field.name for field in fields(cls)}
        own = {key.removeprefix("master."): value for key, value in values.items() if key.startswith("master.")}
        return replace(cls(), **{key: value for key, value in own.items() if key in known})

    def target_offsets_db(self, hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the profile's spectrum has more than the common target, at some frequencies."""
        offsets = [
            self.target_sub_db,
            self.target_low_db,
            self.target_low_mid_db,
            self.target_mid_db,
            self.target_presence_db,
            self.target_air_db,
        ]
        wanted: NDArray[np.float64] = np.interp(np.log(hertz), np.log(OFFSET_HERTZ), offsets)
        return wanted
