"""How a sound profile wants a song separated: the table ``separation`` of its file.

    [separation]
    engine = "htdemucs_ft"     # "": the best that can run where it is separated
    stem_count = 4
    shifts = 2
    residual = "raw"

The keys are the fields of the contract's SeparationSettings. Which engines can run is known only where they run; here
their names and stems are, so that a slip of the pen is told before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from outboard.audio.stems import DEFAULT_STEM_COUNT, STEMS_BY_COUNT
from outboard.errors import Violation

ENGINES: Mapping[str, tuple[int, ...]] = {
    "htdemucs_ft": (2, 4),
    "htdemucs": (2, 4),
    "htdemucs_6s": (2, 4, 5, 6),
    "spectral": (2, 4),
    "passthrough": (2, 4),
}
"""Stem counts that each engine of the separator offers; a test holds them to the separator's own."""
RESIDUALS = ("fold", "raw")
SPEEDS = ("exact", "balanced", "fast")
_RANGES = {"overlap": (0.0, 0.75), "shifts": (0, 10), "seed": (-(2**63), 2**63 - 1)}
_WHOLE = ("stem_count", "shifts", "seed")
_WORDS = {"residual": RESIDUALS, "speed": SPEEDS}
_OPTIONS = {"stems": "stem_count"}  # what the command line calls it
_LONGEST_SHOWN = 60

SETTINGS: Mapping[str, tuple[str, str]] = {
    "engine": (", ".join(ENGINES), "which engine; empty: the best that can run"),
    "stem_count": ("2, 4, 5, 6", "stems; 5 adds piano, 6 guitar"),
    "overlap": ("0 to 0.75", "overlap of neighbouring model windows"),
    "shifts": ("0 to 10", "random shifts averaged, each a whole pass of the model"),
    "seed": ("a whole number", "of everything random"),
    "residual": (", ".join(RESIDUALS), "whether what the stems lack of the song is folded into the last one"),
    "speed": (", ".join(SPEEDS), "trade of speed and precision"),
}
"""What is allowed and what it means, by key, for a person."""


@dataclass(frozen=True)
class SeparationChoice:
    """What a profile says; fields as in the message SeparationSettings. ``None``, or an empty word, says nothing."""

    engine: str = ""
    stem_count: int | None = None
    overlap: float | None = None
    shifts: int | None = None
    seed: int | None = None
    residual: str = ""
    speed: str = ""

    @property
    def said(self) -> dict[str, object]:
        """What it says, by key."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}

    def over(self, below: SeparationChoice) -> SeparationChoice:
        """This one, completed by another where it says nothing."""
        return SeparationChoice(**{**below.said, **self.said})  # type: ignore[arg-type]


NOTHING_SAID = SeparationChoice()


def read_separation(table: object) -> tuple[dict[str, object], list[Violation]]:
    """What the table ``separation`` of a file sets, and what is wrong with it."""
    if not isinstance(table, dict):
        return {}, [Violation("separation", "separation must be a table")]
    wrong = separation_faults(table, "separation")
    engine = table.get("engine", "")
    if isinstance(engine, str) and engine and engine not in ENGINES:
        text = f"there is no separation engine {_shown(engine)}{nearest(engine, ENGINES)}: there are "
        wrong.append(Violation("separation.engine", text + ", ".join(ENGINES)))
    return ({} if wrong else dict(table)), wrong


def separation_faults(values: Mapping[str, object], path: str) -> list[Violation]:
    """What is wrong with settings by key, wherever they came from. Engines are for those who know them.

    Args:
        values: what was said.
        path: of the settings, for the violations.
    """
    found = ((key, _fault(key, value)) for key, value in values.items())
    return [Violation(f"{path}.{key[:_LONGEST_SHOWN]}", text) for key, text in found if text]


def count_fault(engine: str, stem_count: int | None, offered: Iterable[int]) -> str:
    """What is wrong with a number of stems for an engine; empty where it offers so many."""
    count, offered = stem_count or DEFAULT_STEM_COUNT, tuple(offered)
    if not engine or not offered or count in offered:
        return ""
    return f"the engine {engine!r} separates into {', '.join(map(str, offered))} stems, not {count}"


def nearest(word: str, words: Iterable[str]) -> str:
    """A question after the most similar word, to follow an error message; empty where none is similar."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _fault(key: str, value: object) -> str:
    if key not in SETTINGS:
        hint = nearest(_OPTIONS.get(key, key), SETTINGS)
        return f"separation has no {_shown(key)}{hint}: it has {', '.join(SETTINGS)}"
    if key == "engine":
        return "" if isinstance(value, str) else f"engine must be a name, not {_shown(value)}"
    if key in _WORDS:
        known = isinstance(value, str) and value in _WORDS[key]
        hint = nearest(value, _WORDS[key]) if isinstance(value, str) and not known else ""
        return "" if known else f"{key} is {_shown(value)}, must be one of {', '.join(_WORDS[key])}{hint}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{key} must be a number, not {_shown(value)}"
    if key in _WHOLE and not isinstance(value, int):
        return f"{key} must be a whole number, not {value:g}"
    if key == "stem_count":
        allowed = ", ".join(map(str, STEMS_BY_COUNT))
        return "" if value in STEMS_BY_COUNT else f"stem_count is {value}, must be one of {allowed}"
    low, high = _RANGES[key]
    return "" if low <= value <= high else f"{key} is {value:g}, must be {low:g} to {high:g}"  # nor is a NaN in range


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
