"""The four stage services as the orchestrator sees them: a stub each, and the engines that they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from outboard.rpc.channel import aio_channel, outboard_errors
from outboard.settings import PeerSettings
from outboard.v1 import (
    audio_pb2,
    master_service_pb2,
    master_service_pb2_grpc,
    mixer_service_pb2,
    mixer_service_pb2_grpc,
    restorer_service_pb2,
    restorer_service_pb2_grpc,
    separator_service_pb2,
    separator_service_pb2_grpc,
)
from services.orchestrator.engines import EngineCatalogue
from services.orchestrator.plugins import plugin_engine

REFERENCE_ENGINES = ("match", "matchering")
"""What runs for the reference intent unless another engine is named."""
# A stage that is still starting is waited for: nobody is helped by a job that fails a second before it could run.
_PATIENT: dict[str, Any] = {"wait_for_ready": True, "timeout": 60.0}


@dataclass(frozen=True)
class Peers:
    """Stubs and engine catalogues. Close when done."""

    channels: tuple[grpc.aio.Channel, ...]
    separator: separator_service_pb2_grpc.SeparatorServiceAsyncStub
    restorer: restorer_service_pb2_grpc.RestorerServiceAsyncStub
    mixer: mixer_service_pb2_grpc.MixerServiceAsyncStub
    master: master_service_pb2_grpc.MasterServiceAsyncStub
    separator_engines: EngineCatalogue
    restorer_engines: EngineCatalogue
    mixer_engines: EngineCatalogue
    master_engines: EngineCatalogue

    async def master_engine(self, settings: master_service_pb2.MasterSettings) -> audio_pb2.EngineInfo:
        """The engine that a master will run: the named one, or the best for the intent."""
        name = settings.engine
        if not name and settings.intent == master_service_pb2.MASTER_INTENT_REFERENCE:
            name = REFERENCE_ENGINES[0]
        return await self.master_engines.resolve(name, "job.mastering.engine")

    async def plugins(self, names: Sequence[str]) -> dict[str, audio_pb2.EngineInfo]:
        """What the mixer has of these plugins, each like an engine, in their order."""
        if not names:
            return {}
        request = mixer_service_pb2.ListPluginsRequest(names=names)
        with outboard_errors():
            answer = await self.mixer.ListPlugins(request, **_PATIENT)
        found = {plugin.name: plugin_engine(plugin) for plugin in answer.plugins}
        return {name: found[name] for name in names}

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self.channels:
            await channel.close(None)


def connect(settings: PeerSettings) -> Peers:
    """Channels to all stages; nothing is sent yet."""
    separator, restorer, mixer, master = channels = tuple(
        aio_channel(address) for address in (settings.separator, settings.restorer, settings.mixer, settings.master)
    )
    separator_stub = separator_service_pb2_grpc.SeparatorServiceStub(separator)
    restorer_stub = restorer_service_pb2_grpc.RestorerServiceStub(restorer)
    mixer_stub = mixer_service_pb2_grpc.MixerServiceStub(mixer)
    master_stub = master_service_pb2_grpc.MasterServiceStub(master)

    separator_request = separator_service_pb2.SeparatorServiceListEnginesRequest()
    restorer_request = restorer_service_pb2.RestorerServiceListEnginesRequest()
    mixer_request = mixer_service_pb2.MixerServiceListEnginesRequest()
    master_request = master_service_pb2.MasterServiceListEnginesRequest()
    return Peers(
        channels,
        separator_stub,
        restorer_stub,
        mixer_stub,
        master_stub,
        EngineCatalogue("separator", lambda: separator_stub.ListEngines(separator_request, **_PATIENT)),
        EngineCatalogue("restorer", lambda: restorer_stub.ListEngines(restorer_request, **_PATIENT)),
        EngineCatalogue("mixer", lambda: mixer_stub.ListEngines(mixer_request, **_PATIENT)),
        EngineCatalogue("master", lambda: master_stub.ListEngines(master_request, **_PATIENT)),
    )
