"""What all rules of the planner share: the measurements, the preset, what was asked for, and the notes they leave."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from outboard.audio.analysis import Analysis
from outboard.audio.processors import Processor
from outboard.audio.stereo import MAX_SIDE_GAIN
from outboard.presets import Preset
from services.mixer.console import MixSettings
from services.mixer.hearing import Heard

MAX_EQUALIZER_DB = 4.0
"""No band of any equaliser moves further."""


@dataclass(frozen=True)
class Brief:
    """One mix to be planned.

    Attributes:
        analyses: measurements by stem name.
        song: of the song that the stems were separated from; None for supplied stems.
        preset: the sound profile's numbers.
        settings: what was asked for.
        roles: what each stem plays.
        heard: what `hear` heard, by stem name; empty where only analyses are there.
        notes: reasons of the rules that acted, a sentence each, in their order.
    """

    analyses: Mapping[str, Analysis]
    song: Analysis | None
    preset: Preset
    settings: MixSettings
    roles: Mapping[str, str] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def separated(self) -> bool:
        """Whether the stems are parts of one finished song."""
        return self.song is not None

    @property
    def amount(self) -> float:
        """How much of the treatment, 0 to 1."""
        return (100.0 if self.settings.intensity is None else self.settings.intensity) / 100.0

    @property
    def width_cap(self) -> float:
        """Highest factor on any side signal."""
        return MAX_SIDE_GAIN if self.settings.width_cap is None else self.settings.width_cap

    def note(self, sentence: str) -> None:
        """Leaves a reason."""
        self.notes.append(sentence)

    def slot(self, processor: Processor) -> Processor:
        """The processor, marked where the settings bypass its label."""
        return dataclasses.replace(processor, bypass=processor.label in self.settings.bypass)


def beyond(value: float | None, tolerance: float) -> float:
    """How much of the way from ``tolerance`` to 1 an index has gone, 0 to 1."""
    if value is None or value <= tolerance or tolerance >= 1.0:
        return 0.0
    return min(1.0, (value - tolerance) / (1.0 - tolerance))
