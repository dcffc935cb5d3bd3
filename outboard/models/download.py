"""Fetches one file over HTTP so that an interruption costs nothing: what has arrived stays, and the next call goes on.

RFC 9110: ``Range`` asks for the rest, ``If-Range`` with the entity's tag makes a server whose file has changed send it
whole again. The file appears under its name only when all of it is there.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from outboard.errors import NotFound, Unavailable

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and those of the whole, where they are known; may raise to stop."""

_TIMEOUT_SECONDS = 30.0
_BLOCK_BYTES = 1 << 20
# Connections that break off without having brought anything, in a row.
_ATTEMPTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def partial_path(target: Path) -> Path:
    """Where a file lies until all of it is there."""
    return target.with_name(f"{target.name}.part")


def _tag_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.tag")


def fetch(url: str, target: Path, progress: Progress) -> None:
    """Brings a file, going on where an earlier call stopped.

    Raises:
        NotFound: the server has no such file.
        Unavailable: it cannot be reached, or breaks off again and again; what has arrived stays for the next call.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = partial_path(target)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _went_to_the_end(url, target, part, progress):
                part.replace(target)
                _tag_path(target).unlink(missing_ok=True)
                return
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise NotFound(f"{target.name} is not there: the server says {error.code}") from error
            problem = f"the server says {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures == _ATTEMPTS:
            kept = f"; {after} bytes are kept, and the same command goes on from there" if after else ""
            raise Unavailable(f"{target.name} could not be fetched: {problem}{kept}")


def _went_to_the_end(url: str, target: Path, part: Path, progress: Progress) -> bool:
    """One request. Whether the file is whole after it."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = urllib.request.urlopen(_request(url, target, start), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing comes after what is here: it is the whole, or of another file.
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole and int(whole.group(1)) == start:
            return True
        part.unlink()
        return False
    with response:
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        goes_on = response.status == 206 and span is not None and int(span.group(1)) == start
        have = start if goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with suppress(TypeError):
            _tag_path(target).write_text(response.headers.get("ETag"))
        with part.open("ab" if goes_on else "wb") as file:
            progress(have, total)
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                have += len(block)
                progress(have, total)
    return total is None or have == total


def _request(url: str, target: Path, start: int) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        with suppress(FileNotFoundError):
            request.add_header("If-Range", _tag_path(target).read_text())
    return request
