"""What a failed call to a Triton server means, and the error that a caller gets in the end.

Triton tells its faults apart by status code and text only; the texts are those of release 24.10 (server 2.51).
"""

from __future__ import annotations

import re
from enum import Enum

import grpc

from outboard.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidInput,
    OutboardError,
    ResourceExhausted,
    Unavailable,
)

_RETRY_SECONDS = 5.0
# What `outboard.models.triton_model` puts before the message of an error of ours.
_REASON = re.compile(r"\[(MODEL_[A-Z_]+)\] ([^\n]*)")


class Fault(Enum):
    """Why a call failed."""

    GONE = "the server cannot be reached"
    BUSY = "the server's queue is full, or the batch waited too long in it"
    CRASHED = "the model's process is dead; the server does not start it again"
    UNLOADED = "the server does not serve the model now"
    FORGOTTEN = "the server does not know the shared memory, as after a restart"
    REFUSED = "the request does not fit the model"
    FAILED = "the model raised an error"


def fault_of(error: grpc.RpcError) -> Fault:
    """The fault behind an error of a call."""
    code, text = error.code(), error.details() or ""
    if "unknown model" in text:
        return Fault.UNLOADED
    if "shared memory region" in text:
        return Fault.FORGOTTEN
    if "is not healthy" in text:
        return Fault.CRASHED
    if code is grpc.StatusCode.UNAVAILABLE:
        return Fault.BUSY if "queue size" in text or "timeout expired" in text else Fault.GONE
    if code is grpc.StatusCode.CANCELLED:  # by the server, while it stops
        return Fault.GONE
    return Fault.REFUSED if code is grpc.StatusCode.INVALID_ARGUMENT else Fault.FAILED


def final_error(model: str, fault: Fault, details: str, *, was_reached: bool) -> OutboardError:
    """The error for a fault that is not, or no longer, worth another try.

    Args:
        model: the model's name on the server.
        fault: the last one.
        details: the server's text; only its first line reaches the caller.
        was_reached: the server had answered before.
    """
    first_line = details.partition("message: ")[2].partition("\n")[0] or details.partition("\n")[0]
    match fault:
        case Fault.GONE if was_reached:
            text = f"the model server went away while it computed {model!r} and did not come back"
            return Unavailable(text, reason="MODEL_SERVER_LOST", retry_after_seconds=_RETRY_SECONDS)
        case Fault.GONE:
            text = "there is no model server at its address"
            return Unavailable(text, reason="MODEL_SERVER_UNAVAILABLE", retry_after_seconds=_RETRY_SECONDS)
        case Fault.BUSY:
            text = f"the model server's queue for {model!r} stayed full, or longer than a window may wait in it"
            return ResourceExhausted(text, reason="MODEL_SERVER_BUSY", retry_after_seconds=_RETRY_SECONDS)
        case Fault.UNLOADED:
            return Unavailable(f"the model server does not serve {model!r}", reason="MODEL_SERVER_UNAVAILABLE")
        case Fault.REFUSED:
            return InvalidInput(f"the model server refused a batch for {model!r}: {first_line}", reason="MODEL_INVALID")
        case Fault.CRASHED:
            return Internal(f"the model {model!r} crashed on this audio, again and again", reason="MODEL_FAILED")
        case Fault.FORGOTTEN:
            text = f"the model server cannot open the shared memory: is it on this machine? ({first_line})"
            return FailedPrecondition(text, reason="MODEL_SERVER_UNAVAILABLE")
        case Fault.FAILED:
            return Internal(f"the model {model!r} failed on this audio: {first_line}", reason="MODEL_FAILED")


def load_error(model: str, text: str) -> OutboardError:
    """The error for a model that the server could not load; one that ``model.py`` raised keeps its reason.

    Args:
        model: the model's name on the server.
        text: of the server.
    """
    if found := _REASON.search(text):
        return FailedPrecondition(found[2], reason=found[1])
    if "poll from model repository" in text:
        return absent_error(model)
    first_line = text.partition("\n")[0]
    return FailedPrecondition(f"the model server could not load {model!r}: {first_line}", reason="MODEL_INVALID")


def absent_error(model: str) -> OutboardError:
    """The error for a model that is not in the server's repository."""
    text = f"the model server has no usable folder for {model!r} in its repository"
    return FailedPrecondition(text, reason="MODEL_SERVER_UNAVAILABLE")


def too_late(model: str, seconds: float) -> OutboardError:
    """The error for a server that is there but too slow."""
    text = f"{model!r} on the model server gave nobody here an answer for {seconds:g} s"
    return DeadlineExceeded(text, reason="MODEL_SERVER_TIMEOUT")
