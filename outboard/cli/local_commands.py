"""Commands that need no job: analyze, serve, presets."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from outboard import presets as sound_profiles
from outboard.cli import output
from outboard.cli.pipeline import AsJson, Song, checked_server, existing
from outboard.local import local_mesh
from outboard.presets.separation import SETTINGS
from outboard.rpc.convert import to_message
from outboard.v1 import analysis_pb2


def analyze(file: Song, as_json: AsJson = False) -> None:
    """Measures a file: loudness, peaks, spectrum, stereo, tempo, key, and the faults of generated music."""
    existing(file, "file")
    # Imported here: the signal libraries cost seconds that no other command should take to start.
    from outboard.audio.analysis import analyze as measure
    from outboard.audio.files import decode

    with decode(file, sample_rate_hertz=None, field="file") as decoded:
        analysis = measure(decoded.array, decoded.sample_rate_hertz)
    for warning in decoded.warnings:
        output.notices.print(f"[yellow]{warning.code}[/] {warning.message}", highlight=False)
    message = to_message(analysis, analysis_pb2.Analysis)
    if as_json:
        output.print_json(message)
    else:
        output.print_analysis(message)


def serve(
    listen: Annotated[str, typer.Option(help="host:port or unix:path")] = "127.0.0.1:8460",
    as_json: AsJson = False,
) -> None:
    """Serves the job API of this machine until it is told to stop (SIGTERM or Ctrl-C)."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with local_mesh(listen=checked_server(listen, "listen"), notify=output.notices.print) as mesh:
        if as_json:
            output.print_json({"address": mesh.address})
        else:
            output.notices.print(f"serving on {mesh.address}; Ctrl-C stops", highlight=False)
        stop.wait()


presets = typer.Typer(help="Sound profiles.", no_args_is_help=True)


@presets.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """Shows the sound profiles that come with Outboard."""
    names = sound_profiles.names()
    if as_json:
        output.print_json({"presets": list(names)})
    else:
        output.print_files(names)


@presets.command("show")
def show_preset(name: str, as_json: AsJson = False) -> None:
    """Shows every number of a profile, with unit and range."""
    preset = sound_profiles.load(name)
    if as_json:
        output.print_json(_plain(preset))
        return
    table = Table("key", "value", "unit", "range", "meaning")
    for key, value in preset.values.items():
        fact = sound_profiles.KEYS[key]
        table.add_row(key, f"{value:g}", fact.unit, f"{fact.low:g} to {fact.high:g}", fact.meaning)
    for key, said in preset.separation.said.items():
        allowed, meaning = SETTINGS[key]
        table.add_row(f"separation.{key}", str(said), "", allowed, meaning)
    output.console.print(table)
    for slot, plugin in preset.plugins.items():
        output.console.print(f"{slot}: {plugin.name or 'no plugin'}", highlight=False, markup=False)


def _plain(preset: sound_profiles.Preset) -> dict[str, Any]:
    plugins = {
        slot: {"name": plugin.name, "parameters": {**plugin.parameters, **plugin.choices}}
        for slot, plugin in preset.plugins.items()
    }
    return {
        "name": preset.name,
        "values": preset.values,
        "plugins": plugins,
        "separation": preset.separation.said,
    }


@presets.command("check")
def check_preset(file: Path, as_json: AsJson = False) -> None:
    """Reads a profile of one's own and says what is wrong with it."""
    preset = sound_profiles.load(str(file))
    if as_json:
        output.print_json(_plain(preset))
    else:
        output.console.print("the preset is fine")
