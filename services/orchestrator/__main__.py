"""``python -m services.orchestrator [--listen ADDRESS]``: settings, servicer, serve."""

from __future__ import annotations

from outboard.rpc import server
from outboard.rpc.launch import launch
from outboard.settings import Settings
from services.orchestrator import orchestrator


async def main(settings: Settings) -> None:
    """Serves JobService until SIGTERM."""
    async with orchestrator.running(settings) as running:
        await server.serve("orchestrator", running.register, settings)


if __name__ == "__main__":
    launch("orchestrator", main)
