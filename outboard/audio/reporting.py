"""What every stage tells about its work in the same words: the engine, warnings, and how far it is.

Field names are those of ``audio.proto``, so that all of it crosses the wire unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Progress: TypeAlias = Callable[[float], None]
"""Takes the fraction done, 0 to 1; may raise to stop the work."""


@dataclass(frozen=True)
class EngineInfo:
    """One engine of a stage.

    Attributes:
        name: as requests name it.
        version: raised whenever its sound changes.
        backend, device: what computes, and where.
        available: whether a request may name it now.
        unavailable_reason: why not, with what to do about it.
        description: one sentence for a person.
        weights_digest: SHA-256 of the weights in hexadecimal; empty where there are none.
        precision: arithmetic of the model; empty where it does not apply.
        unavailable_error: the reason with which naming it now is refused; empty where it is available.
        stem_counts: numbers of stems that it separates into; none for engines of other stages.
    """

    name: str
    version: int
    backend: str = "numpy"
    device: str = "cpu"
    available: bool = True
    unavailable_reason: str = ""
    description: str = ""
    weights_digest: str = ""
    precision: str = ""
    unavailable_error: str = ""
    stem_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Warning:  # named as the message of the contract that it becomes
    """Something a person should know that did not stop the work.

    Attributes:
        code: for programs, for instance "SHORT_INPUT".
        message: one sentence.
        stem: the one concerned; empty where it is all of the audio.
    """

    code: str
    message: str
    stem: str = ""


def forward(progress: Progress) -> Progress:
    """The same, which does not go back where work begins again: the furthest so far is told."""
    furthest = 0.0

    def told(fraction: float) -> None:
        nonlocal furthest
        furthest = max(furthest, fraction)
        progress(furthest)

    return told


def part(progress: Progress, begin: float, end: float) -> Progress:
    """Progress of a step that is the part from ``begin`` to ``end`` of the whole."""
    return lambda fraction: progress(begin + (end - begin) * min(1.0, fraction))
