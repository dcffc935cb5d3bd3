"""``python -m services.orchestrator [--listen ADDRESS]``: settings, servicer, serve."""

from __future__ import annotations

import argparse
import asyncio

from outboard.rpc import server
from outboard.settings import Settings
from services.orchestrator import orchestrator


async def main(settings: Settings) -> None:
    """Serves JobService until SIGTERM."""
    async with orchestrator.running(settings) as running:
        await server.serve("orchestrator", running.register, settings)


def _settings() -> Settings:
    parser = argparse.ArgumentParser(prog="python -m services.orchestrator")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:PATH (default: OUTBOARD_SERVER_LISTEN)")
    options = parser.parse_args()
    settings = Settings()
    return settings.listening_on(options.listen) if options.listen else settings


if __name__ == "__main__":
    asyncio.run(main(_settings()))
