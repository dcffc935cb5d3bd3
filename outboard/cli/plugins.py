"""Commands about VST3 plugins: which there are on this machine, and what their parameters are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.table import Table

from outboard.audio.plugins.facts import PluginFacts
from outboard.audio.plugins.host import PluginHost, host_from
from outboard.cli import output
from outboard.cli.pipeline import AsJson
from outboard.errors import NotFound
from outboard.settings import PluginSettings

app = typer.Typer(help="VST3 plugins of this machine.", no_args_is_help=True)


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """Loads every plugin in the plugin folders once and says which can be used, and why the others cannot."""
    with _host() as host:
        found = host.all()
        folders = [str(folder) for folder in host.folders]
    if as_json:
        output.print_json({"folders": folders, "plugins": [_plain(facts) for facts in found]})
        return
    table = Table("name", "version", "maker", "channels", "latency", "usable")
    for facts in found:
        told = "yes" if facts.usable else f"{facts.reason}: {facts.message}"
        shown = (str(facts.channels), _latency(facts)) if facts.usable else ("", "")
        table.add_row(facts.name, facts.version, facts.manufacturer, *shown, told)
    output.console.print(table)
    output.console.print(f"searched: {', '.join(folders)}", highlight=False, soft_wrap=True)


@app.command("show")
def show_plugin(name: str, as_json: AsJson = False) -> None:
    """Shows the parameters of a plugin: what presets and plans call them, and what they may be."""
    with _host() as host:
        facts = host.find(name)
        if facts.path is None:
            folders = ", ".join(map(str, host.folders))
            raise NotFound(f"{facts.message}: there is no {name!r} in {folders}", reason=facts.reason, field="name")
        if not facts.usable:
            raise facts.failure()
    if as_json:
        output.print_json(_plain(facts) | {"parameters": [vars(one) for one in facts.parameters.values()]})
        return
    table = Table("parameter", "value", "unit", "range")
    for one in facts.parameters.values():
        allowed = ", ".join(one.choices) if one.choices else f"{one.low:g} to {one.high:g}"
        table.add_row(one.name, str(one.value), one.unit, allowed)
    output.console.print(table)


@contextmanager
def _host() -> Iterator[PluginHost]:
    host = host_from(PluginSettings())
    try:
        yield host
    finally:
        host.close()


def _latency(facts: PluginFacts) -> str:
    if facts.latency_frames == facts.reported_latency_frames:
        return str(facts.latency_frames)
    return f"{facts.latency_frames} (it says {facts.reported_latency_frames})"


def _plain(facts: PluginFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "version": facts.version,
        "manufacturer": facts.manufacturer,
        "channels": facts.channels,
        "latency_frames": facts.latency_frames,
        "reported_latency_frames": facts.reported_latency_frames,
        "digest": facts.digest,
        "usable": facts.usable,
        "reason": facts.reason,
        "message": facts.message,
    }
