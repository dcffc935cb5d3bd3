"""What happens when an engine fails: it is tried again smaller, and then given up, with words that say why.

Failures are told apart by what follows from them. An answer (missing weights, input that the engine cannot take, no
model server) would be the same again and ends the attempts; an accident (no memory, shapes that do not match, an engine
that hangs) may not happen in smaller pieces. What is no matter of the engine (the disk is full, somebody cancels) is
not caught here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outboard.errors import FailedPrecondition, InvalidInput, OutboardError

_ANSWERS = ("MODEL_SERVER_UNAVAILABLE", "MODEL_SERVER_BUSY", "MODEL_SERVER_LOST")


@dataclass(frozen=True)
class Failure:
    """An attempt that came to nothing.

    Attributes:
        code: a reason of the contract's `ErrorReason`.
        message: one sentence.
        is_answer: whether it would be the same again.
    """

    code: str
    message: str
    is_answer: bool = False


def failure_of(error: Exception) -> Failure:
    """What an exception of an engine means."""
    if isinstance(error, OutboardError):
        is_answer = isinstance(error, FailedPrecondition | InvalidInput) or error.reason in _ANSWERS
        return Failure(error.reason, error.message, is_answer)
    message = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return Failure("RESOURCE_EXHAUSTED", message)
    if isinstance(error, TimeoutError):
        return Failure("DEADLINE_EXCEEDED", message)
    return Failure("MODEL_FAILED", message)


def told(failures: Sequence[Failure]) -> str:
    """All attempts in one line, each with its code."""
    return "; tried smaller: ".join(f"{failure.message} ({failure.code})" for failure in failures)
