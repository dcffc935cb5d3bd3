"""Commands about neural models: which there are, fetching their weights, exporting their networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from outboard.cli import output
from outboard.cli.pipeline import AsJson
from outboard.models import registry
from outboard.models.download import Progress as Report
from outboard.models.weights import WeightsFolder

app = typer.Typer(help="Neural models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="as `outboard models list` shows it")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Shows each model: its size, its licence, what it needs, and whether its weights are here and verified."""
    rows = [_row(model) for model in registry.MODELS.values()]
    if as_json:
        output.print_json({"models": rows})
        return
    table = Table("model", "stage", "size", "licence", "needs", "weights", "verified", "problem")
    for row in rows:
        size = f"{int(row['size_bytes']) / 1e6:,.0f} MB"
        shown = (row["name"], row["stage"], size, row["licence"], row["needs"], row["state"])
        table.add_row(*map(str, shown), "yes" if row["verified"] else "no", str(row["problem"]))
    output.console.print(table)


@app.command("pull")
def pull(name: Name, as_json: AsJson = False) -> None:
    """Fetches the weights of a model, going on where an earlier call stopped, verifies them, and exports the networks
    where this machine's processor will run them: the first song has nothing left to wait for.
    """
    model = registry.find(name)
    folder = WeightsFolder(model)
    with _bars(enabled=not as_json) as reports:
        fetched = folder.pull(reports)
    row = _row(model)
    files = [] if row["problem"] else _exported(name)
    if as_json:
        output.print_json({**row, "fetched": fetched, "exports": files})
        return
    output.console.print(f"{name}: {'fetched' if fetched else 'already there'}, {_vouched(bool(row['verified']))}")
    if row["problem"]:
        output.notices.print(f"[yellow]not yet usable:[/] {row['problem']}", highlight=False)


@app.command("export")
def export(name: Name, as_json: AsJson = False) -> None:
    """Exports the networks of a separation model for this machine's processor; the first song would do it otherwise."""
    from outboard.models.htdemucs.exports import exported_files

    files = [str(path) for path in exported_files(registry.find(name))]
    if as_json:
        output.print_json({"name": name, "files": files})
    else:
        output.print_files(files)


def _exported(name: str) -> list[str]:
    """The exports of a model's networks, made if they are needed here and not there yet."""
    # Imported here: what computes takes a moment to load, and most commands compute nothing.
    from outboard.models.htdemucs.exports import exported_files
    from outboard.models.htdemucs.variants import variants_of
    from outboard.models.local import runs_exports

    if not variants_of(name) or not runs_exports("balanced"):
        return []
    with output.notices.status(f"exporting the networks of {name} for this machine's processor, once"):
        return [str(path) for path in exported_files(registry.find(name))]


def _row(model: registry.Model) -> dict[str, str | int | bool]:
    presence = WeightsFolder(model).presence()
    missing = registry.missing_packages(model)
    problem = presence.problem or (registry.install_hint(missing) if missing else "")
    return {
        "name": model.name, "stage": model.stage, "licence": model.licence, "needs": model.needs,
        "size_bytes": model.size_bytes, "state": presence.state, "verified": presence.verified, "problem": problem,
    }  # fmt: skip


def _vouched(verified: bool) -> str:
    return "verified" if verified else "not verified: nothing vouches for these files"


@contextmanager
def _bars(*, enabled: bool) -> Iterator[Callable[[str], Report] | None]:
    """A bar per file on standard error, or nothing where a program is listening or nobody looks."""
    if not (enabled and output.notices.is_terminal):
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=40), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=output.notices) as progress:

        def bar(name: str) -> Report:
            task = progress.add_task(name, total=None)
            return lambda have, total: progress.update(task, completed=have, total=total)

        yield bar
