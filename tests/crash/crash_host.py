"""An orchestrator on toy stages in a process of its own, to be killed: ``python -m tests.crash.crash_host FOLDER``.

Where it listens stands in ``FOLDER/address``. It appends each call of a stage to ``FOLDER/calls``, a line each, which
outlives it. The file ``FOLDER/slow`` holds the seconds that each stage takes for a chunk, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from outboard.report.comparison import Comparison, Curves
from outboard.settings import PeerSettings, Settings, StoreSettings
from outboard.testing import in_process
from services.orchestrator import orchestrator
from services.orchestrator.extras import Extras
from services.orchestrator.results import ObjectDraft
from tests.integration.toy_stages import Behaviour, Toys, toy_analysis


class LoggedBehaviour(Behaviour):
    """Behaviour that also writes what was asked to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._log = folder / "calls"
        self.seconds_per_chunk.update(json.loads((folder / "slow").read_text()))

    async def begin(self, stage: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{stage}\n")
        await super().begin(stage)


def _toy_preview(
    _extras: Extras, _before: object, _after: str, _levels: object, target: ObjectDraft, _progress: object
) -> Comparison:
    target.write_blocking(b"preview")
    nothing = Curves(1.0, (), (), (), ())
    return Comparison(nothing, nothing, ())


async def main(folder: Path) -> None:
    """Serves until killed."""
    Extras._write_preview = _toy_preview  # type: ignore[assignment, method-assign]
    with toy_analysis():
        await _serve(folder)


async def _serve(folder: Path) -> None:
    async with in_process(Toys(LoggedBehaviour(folder)).register) as stages:
        peer = stages.address
        settings = Settings(
            store=StoreSettings(directory=folder / "store"),
            peers=PeerSettings(separator=peer, restorer=peer, mixer=peer, master=peer),
        )
        async with orchestrator.running(settings) as parts, in_process(parts.register, settings) as server:
            address = folder / "address.new"
            address.write_text(server.address)
            address.replace(folder / "address")
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
