"""Exceptions to google.rpc.Status and back.

An ``OutboardError`` travels as a ``google.rpc.Status`` in the trailing metadata, with ``ErrorInfo`` (domain
"outboard", the reason, metadata), ``BadRequest`` (each violation) and ``RetryInfo`` (where waiting helps). On the
client side the same exception comes out again.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from outboard.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    OutboardError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Violation,
)

DOMAIN = "outboard"
STATUS_KEY = "grpc-status-details-bin"

_CODES: dict[type[OutboardError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cancelled: grpc.StatusCode.CANCELLED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Internal: grpc.StatusCode.INTERNAL,
}
_TYPES: dict[int, type[OutboardError]] = {
    **{code.value[0]: kind for kind, code in _CODES.items()},
    grpc.StatusCode.UNAUTHENTICATED.value[0]: PermissionDenied,
    grpc.StatusCode.OUT_OF_RANGE.value[0]: InvalidInput,
    grpc.StatusCode.ABORTED.value[0]: Unavailable,
}
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A full disk and a busy service are worth another try after so long.
_RETRY_STORAGE_SECONDS = 30.0


def status_code(error: OutboardError) -> grpc.StatusCode:
    """The gRPC code of an error: that of the nearest class in the tree."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(error: OutboardError) -> status_pb2.Status:
    """Pack an error with all its details."""
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: status_pb2.Status) -> OutboardError:
    """Unpack what ``to_status`` packed. A status of another domain keeps its code and message."""
    kind = _TYPES.get(status.code, Internal)
    reason: str | None = None
    metadata: dict[str, str] = {}
    violations: list[Violation] = []
    retry_after_seconds: float | None = None
    for detail in status.details:
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad_request):
            violations += [Violation(item.field, item.description) for item in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return kind(
        status.message,
        reason=reason,
        violations=violations,
        retry_after_seconds=retry_after_seconds,
        metadata=metadata,
    )


def from_rpc_error(error: grpc.RpcError) -> OutboardError:
    """The exception behind a failed call of a client, aio or sync."""
    details = _packed_status(error.trailing_metadata() or ())
    if details is not None:
        status = status_pb2.Status()
        status.ParseFromString(details)
        return from_status(status)
    code: grpc.StatusCode = error.code()
    kind = _TYPES.get(code.value[0], Internal)
    reason = "UNIMPLEMENTED" if code is grpc.StatusCode.UNIMPLEMENTED else None
    return kind(error.details() or code.value[1], reason=reason)


def _packed_status(metadata: Iterable[Any]) -> bytes | None:
    for key, value in metadata:
        if key == STATUS_KEY:
            return value if isinstance(value, bytes) else value.encode("latin-1")
    return None


def translate(error: BaseException) -> OutboardError:
    """What a client may be told about any exception. Nothing of an unexpected one leaks: it belongs in the log."""
    if isinstance(error, OutboardError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("the call was cancelled")
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return ResourceExhausted(
            "the disk of the service is full", reason="STORAGE_FULL", retry_after_seconds=_RETRY_STORAGE_SECONDS
        )
    if isinstance(error, MemoryError):
        return ResourceExhausted("the service is out of memory", retry_after_seconds=_RETRY_STORAGE_SECONDS)
    return Internal("an internal error, see the service's log")
