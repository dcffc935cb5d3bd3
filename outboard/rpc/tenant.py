"""The tenant of a call: who owns what it touches.

It travels as call metadata, is checked once at the door, and bounds every look-up. On one machine it is "default"; in a
cluster the edge sets it, and a call without it is refused.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Iterator

from outboard.errors import InvalidInput, PermissionDenied

METADATA_KEY = "outboard-tenant"
DEFAULT_TENANT = "default"

# Tenants name folders and keys of the store: nothing in them may mean anything to a file system.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_current: contextvars.ContextVar[str] = contextvars.ContextVar("outboard_tenant", default=DEFAULT_TENANT)


def current_tenant() -> str:
    """The tenant of the call that is being served here."""
    return _current.get()


@contextlib.contextmanager
def acting_for(tenant: str) -> Iterator[None]:
    """Serve, or call, in the name of a tenant inside."""
    token = _current.set(tenant)
    try:
        yield
    finally:
        _current.reset(token)


def checked_tenant(value: str | None, *, required: bool) -> str:
    """The tenant that a call's metadata names.

    Raises:
        PermissionDenied: TENANT_MISSING, there is none and one is required.
        InvalidInput: TENANT_INVALID, it is no name of 1 to 63 lower-case letters, digits, '-' and '_'.
    """
    if value is None:
        if required:
            raise PermissionDenied(f"the call carries no {METADATA_KEY}", reason="TENANT_MISSING")
        return DEFAULT_TENANT
    if not _NAME.fullmatch(value):
        raise InvalidInput(
            "a tenant's name is 1 to 63 of a-z, 0-9, '-' and '_', the first and last a letter or digit",
            reason="TENANT_INVALID",
            field=METADATA_KEY,
        )
    return value
