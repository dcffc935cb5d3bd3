"""Processors as data: what a plan says about every slot of a chain. ``outboard.audio.chain`` renders it.

Class and field names are those of ``processor.proto``, so that a plan crosses the wire unchanged. Where a
processor's own module already has its settings as a dataclass, the class here only gives them the name of the
message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from outboard.audio.band_extension import BandExtensionSettings
from outboard.audio.chorus import ChorusSettings
from outboard.audio.de_esser import DeEsserSettings
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.echo import EchoSettings
from outboard.audio.expander import ExpanderSettings
from outboard.audio.fir import DEFAULT_TAPS
from outboard.audio.multiband import CompressorBand
from outboard.audio.reverb import ReverbSettings
from outboard.audio.saturation import SaturatorSettings
from outboard.audio.stereo import StereoFieldBand, WidthSettings
from outboard.audio.transients import TransientSettings
from outboard.audio.unmasking import UnmaskerSettings

FilterShapeName = Literal["peak", "low_shelf", "high_shelf", "high_pass", "low_pass", "notch"]


@dataclass(frozen=True)
class FilterBand:
    """One filter (RBJ, or Butterworth for the passes).

    Attributes:
        shape: what it does.
        frequency_hertz: centre or corner.
        gain_db: of peaks and shelves.
        q: of peaks, shelves and notches, 0.1 to 20.
        order: of passes, 1 to 8.
    """

    shape: FilterShapeName
    frequency_hertz: float
    gain_db: float = 0.0
    q: float = 0.7071
    order: int = 2


@dataclass(frozen=True)
class Equalizer:
    """Static filters in series."""

    bands: tuple[FilterBand, ...]


@dataclass(frozen=True)
class CurvePoint:
    """A point of a gain curve."""

    frequency_hertz: float
    gain_db: float = 0.0


@dataclass(frozen=True)
class CurveEqualizer:
    """Points by rising frequency, straight lines over log frequency between them; an odd number of taps."""

    points: tuple[CurvePoint, ...]
    taps: int = DEFAULT_TAPS


@dataclass(frozen=True)
class LinearPhaseEqualizer(CurveEqualizer):
    """A curve that delays every frequency alike: before a stroke it rings as long as behind it."""


@dataclass(frozen=True)
class MinimumPhaseEqualizer(CurveEqualizer):
    """A curve whose phase turns as an analogue filter's: nothing rings before a stroke."""


@dataclass(frozen=True)
class DynamicEqualizer:
    """Bands in series whose gains follow levels."""

    bands: tuple[DynamicBandSettings, ...]


@dataclass(frozen=True)
class Compressor(CompressorSettings):
    """A feed-forward compressor, or an upward expander (ratio under 1)."""


@dataclass(frozen=True)
class MultibandCompressor:
    """A compressor for every band, by rising frequency."""

    bands: tuple[CompressorBand, ...]


@dataclass(frozen=True)
class Saturator(SaturatorSettings):
    """Harmonics by a curve, oversampled eight times."""


@dataclass(frozen=True)
class TransientShaper(TransientSettings):
    """Attack and sustain."""


@dataclass(frozen=True)
class StereoWidth(WidthSettings):
    """Width, mono-safe bass and balance of the whole signal."""


@dataclass(frozen=True)
class StereoField:
    """Width and centre band by band, linear-phase."""

    bands: tuple[StereoFieldBand, ...]


@dataclass(frozen=True)
class BandExtender(BandExtensionSettings):
    """New top where a codec or a vocoder cut the spectrum off."""


@dataclass(frozen=True)
class DeEsser(DeEsserSettings):
    """Turns sibilants of a voice down."""


@dataclass(frozen=True)
class Expander(ExpanderSettings):
    """Makes quiet moments quieter: a downward expander or gate."""


@dataclass(frozen=True)
class Delay(EchoSettings):
    """An echo."""


@dataclass(frozen=True)
class Reverb(ReverbSettings):
    """A stereo reverb."""


@dataclass(frozen=True)
class Chorus(ChorusSettings):
    """Copies with a swinging delay."""


@dataclass(frozen=True)
class Unmasker(UnmaskerSettings):
    """Gives way to another sound in the bands of hearing in which it covers it."""


@dataclass(frozen=True)
class Plugin:
    """A VST3 plugin.

    Attributes:
        name: of its file in the plugin folders, without ``.vst3``; case, spaces and signs do not count.
        parameters: numbers by the parameter's name, in the plugin's own units.
        choices: words of the parameters that are no numbers.
        stand_in: what takes the slot where the plugin cannot run; None: nothing does.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)
    choices: Mapping[str, str] = field(default_factory=dict, hash=False)
    stand_in: Processor | None = None


ProcessorKind: TypeAlias = (
    Equalizer
    | LinearPhaseEqualizer
    | MinimumPhaseEqualizer
    | DynamicEqualizer
    | Compressor
    | MultibandCompressor
    | Saturator
    | TransientShaper
    | StereoWidth
    | StereoField
    | BandExtender
    | DeEsser
    | Expander
    | Delay
    | Reverb
    | Chorus
    | Unmasker
    | Plugin
)


@dataclass(frozen=True)
class Processor:
    """One slot of a chain.

    Attributes:
        label: what reports and ``bypass`` lists call it, for instance ``presence``.
        kind: which processor, with its numbers.
        bypass: left out of the signal path, kept in the plan.
    """

    label: str
    kind: ProcessorKind
    bypass: bool = False


def member_name(kind: object) -> str:
    """``LinearPhaseEqualizer`` is the member ``linear_phase_equalizer`` of the contract's oneof."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(kind).__name__).lower()


@dataclass(frozen=True)
class ProcessorReport:
    """What a processor did to the level: mean and furthest gain in dB (negative lowers); None where it has none.

    ``ran`` says what really ran where a plugin was asked for: its name and version, or what stood in for it.
    """

    label: str
    average_gain_db: float | None = None
    extreme_gain_db: float | None = None
    ran: str = ""
