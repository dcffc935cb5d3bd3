"""Commands about neural models: which there are, fetching their weights, exporting their networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from outboard.cli import output
from outboard.cli.pipeline import AsJson
from outboard.errors import InvalidInput
from outboard.models import registry
from outboard.models.download import Progress as Report
from outboard.models.htdemucs.variants import variants_of
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
    # Lines and no table: eight columns would cut names off where a terminal is narrow.
    for row in rows:
        size = f"{int(row['size_bytes']) / 1e6:,.0f} MB"
        vouched = "" if row["state"] != "present" else ", verified" if row["verified"] else ", not verified"
        _tell(f"{row['name']:<16}{size:>9}  {row['state']}{vouched}")
        _tell(f"    {row['stage']}; {row['licence']}; needs {row['needs']}")
        if row["backend"]:
            _tell(f"    computed by {row['backend']}")
        if row["problem"]:
            _tell(f"    {row['problem']}")


@app.command("pull")
def pull(name: Name, as_json: AsJson = False) -> None:
    """Fetches the weights of a model, going on where an earlier call stopped, verifies them, and prepares a separation
    model for this machine as `export` does: the first song has nothing left to wait for.
    """
    model = registry.find(name)
    folder = WeightsFolder(model)
    with _bars(enabled=not as_json) as reports:
        fetched = folder.pull(reports)
    files = [] if _row(model)["problem"] or not variants_of(name) else _prepared(model, anew=False)
    row = _row(model)
    if as_json:
        output.print_json({**row, "fetched": fetched, "exports": files})
        return
    output.console.print(f"{name}: {'fetched' if fetched else 'already there'}, {_vouched(bool(row['verified']))}")
    _tell_backend(row)
    if row["problem"]:
        output.notices.print(f"[yellow]not yet usable:[/] {row['problem']}", highlight=False)


@app.command("export")
def export(name: Name, as_json: AsJson = False) -> None:
    """Measures which backend computes a separation model fastest on this machine's processor, keeps to it from now on,
    and exports the networks for it.
    """
    model = registry.find(name)
    if not variants_of(name):
        separating = ", ".join(known for known in registry.MODELS if variants_of(known))
        raise InvalidInput(f"{name} is not exported: {separating} are", field="name")
    files = _prepared(model, anew=True)
    row = _row(model)
    if as_json:
        output.print_json({"name": name, "files": files, "backend": row["backend"]})
        return
    output.print_files(files)
    _tell_backend(row)


def _prepared(model: registry.Model, *, anew: bool) -> list[str]:
    # Imported here: what computes takes a moment to load, and most commands compute nothing.
    from outboard.models.htdemucs.choice import prepare

    with output.notices.status(f"preparing {model.name} for this machine's processor: a minute, or two"):
        return [str(path) for path in prepare(model, anew=anew)]


def _tell_backend(row: Mapping[str, str | int | bool]) -> None:
    if row["backend"]:
        output.notices.print(f"computed by {row['backend']}", highlight=False)


def _row(model: registry.Model) -> dict[str, str | int | bool]:
    presence = WeightsFolder(model).presence()
    missing = registry.missing_packages(model)
    problem = presence.problem or (registry.install_hint(missing) if missing else "")
    return {
        "name": model.name, "stage": model.stage, "licence": model.licence, "needs": model.needs,
        "size_bytes": model.size_bytes, "state": presence.state, "verified": presence.verified,
        "backend": "" if problem or presence.state != "present" else _backend(model.name), "problem": problem,
    }  # fmt: skip


def _backend(name: str) -> str:
    """What computes a model in this process; empty where there is no choice."""
    if not variants_of(name):
        return ""
    from outboard.models.htdemucs.choice import described

    return described(name)


def _tell(line: str) -> None:
    output.console.print(line, highlight=False, markup=False, soft_wrap=True)


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
