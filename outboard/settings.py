"""Everything that the environment decides, one documented class per concern.

Each class reads variables with its own prefix (``OUTBOARD_SERVER_LISTEN``, ``OUTBOARD_STORE_DIRECTORY`` ...), and
``Settings`` holds one of each. Values are checked when they are read: a wrong one stops the process at its start, with
the variable's name in the text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from outboard.errors import InvalidInput, Violation

_HOST_AND_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):(\d{1,5})$")


class _EnvironmentSettings(BaseSettings):
    """Reads a prefix of the environment; a wrong value is an `InvalidInput` that names the variable."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            prefix = type(self).model_config.get("env_prefix", "")
            violations = [
                Violation(f"{prefix}{'.'.join(map(str, entry['loc']))}".upper(), entry["msg"])
                for entry in error.errors(include_url=False)
            ]
            message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
            raise InvalidInput(message, violations=violations) from None


class ServerSettings(_EnvironmentSettings):
    """Where a server listens and how it treats its connections."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_SERVER_", frozen=True)

    listen: str = "127.0.0.1:50051"
    """``host:port`` (port 0: any free one) or ``unix:/path/to/socket``."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """Time that calls in progress get after SIGTERM before they are cancelled."""
    maximum_deadline_seconds: float = Field(default=172_800.0, gt=0)
    """Longest time of any call; also the deadline of a call that came without one. Longer than a restorer may wait for
    a GPU, which must not decide what a stem sounds like."""
    maximum_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    """Largest message, either way."""
    maximum_concurrent_streams: int = Field(default=128, ge=1)
    """Calls at once on one connection; more of them wait in the client."""
    keepalive_seconds: float = Field(default=30.0, gt=0)
    """Time between pings on a quiet connection; a peer that misses one for ten seconds is gone."""
    require_tenant: bool = False
    """Refuse calls without ``outboard-tenant`` (set in a cluster, where the edge puts it there)."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_address(value)


class LimitSettings(_EnvironmentSettings):
    """How much work a service takes on at once, and how large one piece of it may be."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_LIMIT_", frozen=True)

    concurrent_renders: int = Field(default_factory=lambda: max(1, os.cpu_count() or 1), ge=1)
    """Renders that compute at the same time; the number of cores unless given."""
    waiting_calls: int = Field(default=64, ge=0)
    """Calls beyond those that compute; they receive or wait their turn. One more is refused with RESOURCE_EXHAUSTED."""
    queued_messages: int = Field(default=4, ge=1)
    """Messages between the event loop and a worker, each way; a full queue stops reading, and so the peer's writing."""
    maximum_audio_seconds: float = Field(default=2 * 3600.0, gt=0)
    """Longest audio of one stream."""
    idle_seconds: float = Field(default=300.0, gt=0)
    """Time after which a worker gives up a client that neither sends nor reads."""
    cancel_grace_seconds: float = Field(default=2.0, gt=0)
    """Time within which a cancelled worker has to stop; past it the fault is logged."""


class StoreSettings(_EnvironmentSettings):
    """Where artifacts live, and how much of them."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_STORE_", frozen=True)

    directory: Path = Path.home() / ".local" / "share" / "outboard"
    """Folder of the embedded store and of the workflow's database."""
    intermediate_days: float = Field(default=7.0, gt=0)
    """Time since their last use after which inputs and intermediates go that nobody asked to keep."""
    maximum_bytes: int = Field(default=50 * 1024**3, gt=0)
    """Size above which the least recently used of them go, and what jobs deliver when nothing else is left."""
    job_days: float = Field(default=30.0, gt=0)
    """Time after its end for which a job is listed and its artifacts can be found."""
    maximum_jobs: int = Field(default=10_000, ge=1)
    """Number of ended jobs, of all tenants together, above which the oldest go."""


class SpoolSettings(_EnvironmentSettings):
    """Where audio and rendered files wait during a call."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_SPOOL_", frozen=True)

    directory: Path | None = None
    """A folder on a disk: in one that lives in memory (tmpfs) a song would take the memory that spooling is to save, so
    such a one is refused. Unset: the system's folder for temporary files."""


class PluginSettings(_EnvironmentSettings):
    """VST3 plugins of the console, and how much they may take."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_PLUGIN_", frozen=True)

    folders: str = ""
    """Folders that are searched, with ``:`` between them; empty: ``~/.vst3``, ``/usr/lib/vst3``,
    ``/usr/local/lib/vst3``."""
    load_seconds: float = Field(default=10.0, gt=0)
    """Time within which a plugin has to be loaded, and then to tell its parameters."""
    block_seconds: float = Field(default=10.0, gt=0)
    """Time within which it has to give back a block, a third of a second of sound."""
    maximum_bytes: int = Field(default=4 * 1024**3, ge=1024**3)
    """Address space of a plugin's process, the interpreter's included."""
    warm_processes: int = Field(default=1, ge=0)
    """Processes that wait for the next plugin, once the first was asked for."""


class TelemetrySettings(_EnvironmentSettings):
    """Logs and traces."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_TELEMETRY_", frozen=True)

    endpoint: str = ""
    """OTLP/gRPC endpoint of the collector, for instance ``http://localhost:4317``; empty: no traces are made."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces that begin here and are kept."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe record that is written."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or lines for a person."""


class PeerSettings(_EnvironmentSettings):
    """Addresses of the stage services, for the orchestrator."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_PEER_", frozen=True)

    separator: str = "127.0.0.1:50061"
    restorer: str = "127.0.0.1:50062"
    mixer: str = "127.0.0.1:50063"
    master: str = "127.0.0.1:50064"

    @field_validator("*")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_address(value)


class TritonSettings(_EnvironmentSettings):
    """The model server, where neural models do not run in the service itself."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_TRITON_", frozen=True)

    address: str = ""
    """``host:port`` of Triton's gRPC service; empty: models run in the service's own process."""
    shared_memory: bool = False
    """Pass audio through shared memory: only where the server runs on the same machine and sees its /dev/shm."""
    in_flight: int = Field(default=8, ge=1)
    """Windows that are on the server at once, of all jobs of this service."""
    deadline_seconds: float = Field(default=300.0, gt=0)
    """Time without any answer of a model, of windows that were sent or tried, after which it is given up. How long the
    queue is does not count."""
    restart_seconds: float = Field(default=30.0, ge=0)
    """Time within which a server that cannot be reached has to be back."""
    probe_seconds: float = Field(default=60.0, gt=0)
    """Time without an answer after which a model is tried with a window of silence."""

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return checked_address(value) if value else value


@dataclass(frozen=True)
class Settings:
    """One of each. Anything given takes the place of what the environment says."""

    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    plugins: PluginSettings = field(default_factory=PluginSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    peers: PeerSettings = field(default_factory=PeerSettings)
    triton: TritonSettings = field(default_factory=TritonSettings)

    def listening_on(self, address: str) -> Settings:
        """The same with another address to listen on."""
        server = self.server.model_copy(update={"listen": checked_address(address)})
        return replace(self, server=server)


def checked_address(address: str) -> str:
    """Return an address to listen on or to call.

    Raises:
        ValueError: it is neither ``host:port`` nor ``unix:PATH``, or the path is longer than a socket's may be (107).
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path or len(os.fsencode(path)) > 107:
            raise ValueError(f"a socket's path has 1 to 107 bytes, this has {len(os.fsencode(path))}: {path!r}")
        return address
    match = _HOST_AND_PORT.match(address)
    if match is None or int(match.group(2)) > 65535:
        raise ValueError(f"an address is host:port or unix:PATH, not {address!r}")
    return address
