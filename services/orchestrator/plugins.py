"""The plugins of a mix as parts of its result's name: which binary runs, or that its stand-in does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from outboard.v1 import audio_pb2, mixer_service_pb2, processor_pb2


class PluginFact(Protocol):
    """What `plugin_engine` reads: of a plugin that the mixer has, or of one that ran."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def reason(self) -> str: ...


def plugin_names(config: mixer_service_pb2.MixConfig) -> list[str]:
    """Every plugin that a mix may run: those of its plan, or of its preset where it has none."""
    if not config.HasField("plan"):
        return sorted({plugin.name for plugin in config.preset.plugins.values() if plugin.name})
    plan = config.plan
    chains = (*(strip.chain for strip in plan.strips), *(bus.chain for bus in plan.buses), plan.master_chain)
    return sorted({name for chain in chains for name in _named(chain)})


def _named(chain: Iterable[processor_pb2.Processor]) -> list[str]:
    return [slot.plugin.name for slot in chain if slot.HasField("plugin")]


def plugin_engine(plugin: PluginFact) -> audio_pb2.EngineInfo:
    """A plugin like an engine: named by version and binary, or by what keeps it from running."""
    if plugin.reason:
        return audio_pb2.EngineInfo(name=f"in place of {plugin.name}", backend=plugin.reason)
    return audio_pb2.EngineInfo(name=plugin.name, backend=plugin.version, weights_digest=plugin.digest)
