"""Exceptions to status and back."""

from __future__ import annotations

import asyncio
import errno

import grpc
import pytest

from outboard import errors
from outboard.errors import Internal, InvalidInput, OutboardError, ResourceExhausted, Violation
from outboard.rpc.errors import STATUS_KEY, from_rpc_error, from_status, status_code, to_status, translate
from outboard.v1 import error_reason_pb2

_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OutboardError)]
_LEAVES = [kind for kind in _KINDS if kind is not OutboardError]


@pytest.mark.parametrize("kind", _LEAVES)
def test_every_error_comes_back_as_itself(kind: type[OutboardError]) -> None:
    """Class, reason, text, violations, time to wait and metadata survive the wire."""
    before = kind(
        "no such thing: 3",
        reason="STREAM_GAP",
        violations=[Violation("a.b[0]", "is 3"), Violation("c", "is 4")],
        retry_after_seconds=1.5,
        metadata={"key": "value"},
    )
    after = from_status(to_status(before))
    assert type(after) is kind
    assert vars(after) == vars(before)


@pytest.mark.parametrize("kind", _LEAVES)
def test_every_class_has_its_own_code(kind: type[OutboardError]) -> None:
    """The tree's docstring says which; the name of the code stands in it."""
    assert status_code(kind("x")).name in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", _KINDS)
def test_default_reasons_are_in_the_contract(kind: type[OutboardError]) -> None:
    """A reason is the name of an ErrorReason without its prefix."""
    assert f"ERROR_REASON_{kind.default_reason}" in dict(error_reason_pb2.ErrorReason.items())


def _rpc_error(code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, bytes], ...] = ()) -> grpc.RpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details, None)


def test_a_failed_call_raises_what_the_service_raised() -> None:
    """The status in the trailing metadata decides."""
    status = to_status(InvalidInput("bad", field="x", reason="AUDIO_EMPTY")).SerializeToString()
    error = from_rpc_error(_rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "bad", ((STATUS_KEY, status),)))
    assert isinstance(error, InvalidInput)
    assert (error.reason, error.violations) == ("AUDIO_EMPTY", (Violation("x", "bad"),))


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable, "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.CANCELLED, errors.Cancelled, "CANCELLED"),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Internal, "UNIMPLEMENTED"),
        (grpc.StatusCode.UNKNOWN, errors.Internal, "INTERNAL"),
        (grpc.StatusCode.UNAUTHENTICATED, errors.PermissionDenied, "PERMISSION_DENIED"),
    ],
)
def test_a_status_of_grpc_s_own_finds_its_class(code: grpc.StatusCode, kind: type[OutboardError], reason: str) -> None:
    """Without details the code alone decides."""
    error = from_rpc_error(_rpc_error(code, "gone"))
    assert (type(error), error.reason, error.message) == (kind, reason, "gone")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_as_such(number: int) -> None:
    """STORAGE_FULL, with a time to try again."""
    error = translate(OSError(number, "No space left on device", "/secret/path"))
    assert isinstance(error, ResourceExhausted)
    assert error.reason == "STORAGE_FULL"
    assert error.retry_after_seconds
    assert "secret" not in error.message


def test_unexpected_exceptions_leak_nothing() -> None:
    """Text and type of a fault of ours stay here."""
    error = translate(ZeroDivisionError("password is 123"))
    assert type(error) is Internal
    assert "123" not in error.message
    assert "ZeroDivision" not in error.message


def test_cancellation_and_memory_have_their_classes() -> None:
    """Neither is a fault of the code."""
    assert type(translate(asyncio.CancelledError())) is errors.Cancelled
    assert type(translate(MemoryError())) is ResourceExhausted
