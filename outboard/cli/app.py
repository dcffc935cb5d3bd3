"""All commands under one name, and the one place where an error becomes an exit code."""

from __future__ import annotations

import sys

import typer

from outboard import errors
from outboard.cli import jobs, local_commands, pipeline
from outboard.cli.output import exit_code, notices, print_error

app = typer.Typer(
    name="outboard",
    help="Separates, restores, mixes and masters songs. Exit codes: 0 done, 1 failed, 2 bad usage or input, "
    "3 not found, 4 unavailable or full, 5 cancelled, 6 not possible now.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("master")(pipeline.master)
app.command("separate")(pipeline.separate)
app.command("mix")(pipeline.mix)
app.command("analyze")(local_commands.analyze)
app.command("serve")(local_commands.serve)
app.add_typer(jobs.app, name="jobs")
app.add_typer(local_commands.models, name="models")
app.add_typer(local_commands.presets, name="presets")


def main() -> None:
    """Entry point of ``outboard``."""
    try:
        app()
    except errors.OutboardError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        notices.print("interrupted")
        sys.exit(130)
