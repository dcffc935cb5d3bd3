"""An orchestrator in this process on toy stages, for tests of JobService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outboard.audio.wave_header import float_wave_header
from outboard.client import AsyncClient
from outboard.settings import PeerSettings, Settings, StoreSettings
from outboard.testing import in_process
from outboard.v1 import job_service_pb2 as messages
from services.orchestrator import orchestrator
from tests.integration.toy_stages import Behaviour, Toys, toy_analysis

RATE_HERTZ = 48000


@dataclass(frozen=True)
class Bench:
    """What a test works with: clients of two tenants, the toys' behaviour, the store's folder, and the parts inside."""

    client: AsyncClient
    stranger: AsyncClient
    behaviour: Behaviour
    folder: Path
    parts: orchestrator.Orchestrator
    address: str

    async def upload(self, seed: int, seconds: float = 1.0) -> messages.Upload:
        """Noise of its own per seed, so that no result of another test serves."""
        return await self.client.upload(noise_file(seed, seconds))

    async def job(self, seed: int, seconds: float = 1.0, **fields: object) -> messages.Job:
        """A job on such an upload."""
        upload = await self.upload(seed, seconds)
        return await self.client.create_job(
            messages.Job(song=messages.SongInput(upload=upload.name), **fields)  # type: ignore[arg-type]
        )


def artifact_of(job: messages.Job, name: str) -> messages.Artifact:
    """An artifact of a job by its name within the job."""
    return next(artifact for artifact in job.artifacts if artifact.name.endswith(f"/artifacts/{name}"))


def noise_file(seed: int, seconds: float) -> bytes:
    """A stereo float WAV of quiet noise."""
    frames = round(seconds * RATE_HERTZ)
    noise = 0.1 * np.random.default_rng(seed).standard_normal((frames, 2))
    return float_wave_header(frames, 2, RATE_HERTZ) + noise.astype("<f4").tobytes()


@asynccontextmanager
async def bench(folder: Path, restorer: str = "", separator: str = "") -> AsyncIterator[Bench]:
    """Stages, orchestrator and clients, all on sockets in this process; addresses of real stages may be given."""
    behaviour = Behaviour()
    async with in_process(Toys(behaviour).register, drain_seconds=0.5) as stages:
        peer = stages.address
        settings = Settings(
            store=StoreSettings(directory=folder),
            peers=PeerSettings(separator=separator or peer, restorer=restorer or peer, mixer=peer, master=peer),
        )
        with toy_analysis():
            async with (
                orchestrator.running(settings) as parts,
                in_process(parts.register, settings, drain_seconds=0.5) as server,
                AsyncClient(server.address) as client,
                AsyncClient(server.address, tenant="stranger") as stranger,
            ):
                yield Bench(client, stranger, behaviour, folder, parts, server.address)
