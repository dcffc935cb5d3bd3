"""A song before and after, over time and section by section: what `curves` measures and the page shows.

Plain values only, so that they can be stored and read where no signal library is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Curves:
    """One side over time; every tuple has one entry per column.

    Attributes:
        column_seconds: length of a column.
        low, high: extremes of the samples, -1 to 1 and beyond.
        short_term_lufs: loudness of the 3 s that end with the column; None before 3 s and in silence.
        correlation: of left and right, -1 to 1; None where a side is silent.
    """

    column_seconds: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    short_term_lufs: tuple[float | None, ...]
    correlation: tuple[float | None, ...]


@dataclass(frozen=True)
class Levels:
    """Figures of a section on one side; None where unmeasurable."""

    lufs: float | None
    crest_db: float | None
    side_over_mid_db: float | None
    low_db: float | None
    high_db: float | None


@dataclass(frozen=True)
class Section:
    """A part of the song; `low_db` and `high_db` are its bands under 120 Hz and over 5 kHz against the whole."""

    start_seconds: float
    end_seconds: float
    before: Levels
    after: Levels


@dataclass(frozen=True)
class Comparison:
    """Both sides over time, and section by section."""

    before: Curves
    after: Curves
    sections: tuple[Section, ...]

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Comparison:
        """What `dataclasses.asdict` made of a comparison, also after a way through JSON."""
        return cls(
            _curves(fields["before"]),
            _curves(fields["after"]),
            tuple(
                Section(
                    section["start_seconds"],
                    section["end_seconds"],
                    Levels(**section["before"]),
                    Levels(**section["after"]),
                )
                for section in fields["sections"]
            ),
        )


def _curves(fields: Mapping[str, Any]) -> Curves:
    series = {name: tuple(values) for name, values in fields.items() if name != "column_seconds"}
    return Curves(fields["column_seconds"], **series)
