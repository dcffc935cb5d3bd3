"""From command line and environment to a process that serves: ``python -m services.NAME [--listen ADDRESS]``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from outboard.errors import FailedPrecondition, InvalidInput, OutboardError
from outboard.settings import Settings

_WRONG_SETTINGS, _FAILED = 2, 1


def launch(
    service_name: str, main: Callable[[Settings], Coroutine[Any, Any, None]], arguments: Sequence[str] | None = None
) -> None:
    """Reads the settings and runs a service until it ends.

    What stops it at its start is told in one line on standard error: exit code 2 for settings that cannot be, 1 for
    anything else that it says of itself (an address that is taken).

    Args:
        service_name: for the usage text.
        main: serves with these settings.
        arguments: instead of the command line's.
    """
    parser = argparse.ArgumentParser(prog=f"python -m services.{service_name}")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:PATH (default: OUTBOARD_SERVER_LISTEN)")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(main(_settings(options.listen)))
    except OutboardError as error:
        wrong = isinstance(error, InvalidInput | FailedPrecondition)
        parser.exit(_WRONG_SETTINGS if wrong else _FAILED, f"{parser.prog}: {error.message}\n")


def _settings(listen: str | None) -> Settings:
    settings = Settings()
    if listen is None:
        return settings
    try:
        return settings.listening_on(listen)
    except ValueError as error:
        raise InvalidInput(f"--listen: {error}", field="listen") from None
