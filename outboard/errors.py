"""Every error that Outboard raises on purpose.

    OutboardError                     reason, message, field violations
     ├─ InvalidInput                  INVALID_ARGUMENT     the request or the audio cannot be used
     ├─ NotFound                      NOT_FOUND            no such job, artifact, engine or preset
     ├─ AlreadyExists                 ALREADY_EXISTS       a write-once name is taken by other content
     ├─ FailedPrecondition            FAILED_PRECONDITION  not in a state that allows it (weights missing, job not done)
     ├─ ResourceExhausted             RESOURCE_EXHAUSTED   a limit or the disk is full; waiting may help
     ├─ Unavailable                   UNAVAILABLE          a peer or the store cannot be reached now; retry
     ├─ DeadlineExceeded              DEADLINE_EXCEEDED    the caller's time is over
     ├─ Cancelled                     CANCELLED            somebody asked to stop
     ├─ PermissionDenied              PERMISSION_DENIED    the tenant is missing or may not
     └─ Internal                      INTERNAL             a fault of ours

Reasons are strings equal to the names in ``error_reason.proto`` without their ``ERROR_REASON_`` prefix; a test holds
the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One field that is wrong: its path in the request, and what is wrong with it (value and what is allowed)."""

    field: str
    description: str


class OutboardError(Exception):
    """Base of the tree.

    Args:
        message: one sentence for a person; names the value and what is allowed; never a path, a secret or a tenant.
        reason: name of an ``ErrorReason``.
        field: path of the offending request field, when there is just one.
        violations: several offending fields.
        retry_after_seconds: set where waiting that long helps.
        metadata: further facts for a program (strings only).
    """

    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.violations = tuple(violations) or ((Violation(field, message),) if field else ())
        self.retry_after_seconds = retry_after_seconds
        self.metadata = dict(metadata or {})

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (decoding runs in a child), so keyword arguments must survive pickling.
        return _rebuild, (
            type(self), self.message, self.reason, self.violations, self.retry_after_seconds, self.metadata,
        )  # fmt: skip


def _rebuild(
    kind: type[OutboardError],
    message: str,
    reason: str,
    violations: tuple[Violation, ...],
    retry_after_seconds: float | None,
    metadata: dict[str, str],
) -> OutboardError:
    return kind(
        message, reason=reason, violations=violations, retry_after_seconds=retry_after_seconds, metadata=metadata
    )


class InvalidInput(OutboardError):
    """The request or the audio cannot be used as it is."""

    default_reason = "INVALID_ARGUMENT"


class NotFound(OutboardError):
    """Nothing of that name is visible to this tenant."""

    default_reason = "NOT_FOUND"


class AlreadyExists(OutboardError):
    """A write-once name is taken by other content."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(OutboardError):
    """The system is not in a state that allows the call."""

    default_reason = "FAILED_PRECONDITION"


class ResourceExhausted(OutboardError):
    """A limit is reached or the disk is full."""

    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(OutboardError):
    """A peer or the store cannot be reached now; a retry may succeed."""

    default_reason = "UNAVAILABLE"


class DeadlineExceeded(OutboardError):
    """The caller's time is over."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(OutboardError):
    """Somebody asked to stop."""

    default_reason = "CANCELLED"


class PermissionDenied(OutboardError):
    """The tenant is missing or may not do this."""

    default_reason = "PERMISSION_DENIED"


class Internal(OutboardError):
    """A fault of ours."""

    default_reason = "INTERNAL"
