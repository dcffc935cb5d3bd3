"""All commands under one name, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from outboard import errors, telemetry
from outboard.cli import jobs, local_commands, mastering, mixing, models, pipeline, plugins, restoring
from outboard.cli.output import exit_code, print_error
from outboard.rpc import tracing

app = typer.Typer(
    name="outboard",
    help="Separates, restores, mixes and masters songs. Exit codes: 0 done, 1 failed, 2 bad usage or input, "
    "3 not found, 4 unavailable or full, 5 cancelled, 6 not possible now.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("master")(mastering.master)
app.command("album")(mastering.album)
app.command("separate")(pipeline.separate)
app.command("restore")(restoring.restore)
app.command("mix")(mixing.mix)
app.command("analyze")(local_commands.analyze)
app.command("serve")(local_commands.serve)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(plugins.app, name="plugins")
app.add_typer(local_commands.presets, name="presets")


def _version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("outboard"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="show the version and end", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


_UsageError: Any = typer.BadParameter.__base__
"""What the option parser raises."""


def main() -> None:
    """Entry point of ``outboard``."""
    as_json = "--json" in sys.argv
    try:
        telemetry.configure_traces("cli")
        with tracing.span(" ".join(["outboard", *filter(str.isalpha, sys.argv[1:2])])):
            # The parser's own way to tell a person about wrong usage is a box of text.
            code = app(standalone_mode=not as_json)
        sys.exit(code or 0)
    except Exception as raised:
        error = _told(raised)
        print_error(error, as_json=as_json)
        sys.exit(exit_code(error))
    finally:
        telemetry.shutdown()


def _told(raised: Exception) -> errors.OutboardError:
    """What a user is told about an exception: never a traceback, unless OUTBOARD_TELEMETRY_LOG_LEVEL is DEBUG."""
    if isinstance(raised, errors.OutboardError):
        return raised
    if isinstance(raised, _UsageError):
        return errors.InvalidInput(raised.format_message())
    if isinstance(raised, OSError) and raised.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.ResourceExhausted("the disk is full", reason="STORAGE_FULL")
    if isinstance(raised, OSError) and raised.strerror:
        return errors.InvalidInput(f"{Path(raised.filename or '').name!r}: {raised.strerror}")
    if os.environ.get("OUTBOARD_TELEMETRY_LOG_LEVEL") == "DEBUG":
        traceback.print_exception(raised)
    return errors.Internal(f"an internal error ({type(raised).__name__}): OUTBOARD_TELEMETRY_LOG_LEVEL=DEBUG shows it")
