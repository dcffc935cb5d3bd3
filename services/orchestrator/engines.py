"""Which engine will run: asked of the stage service before a result's name is made."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from outboard.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, Unavailable
from outboard.presets import nearest
from outboard.rpc.channel import outboard_errors
from outboard.v1 import audio_pb2

_FRESH_SECONDS = 2.0
_LONGEST_NAME = 100
PASSTHROUGH = "passthrough"


class HasEngines(Protocol):
    """The answer to any stage's ListEngines."""

    @property
    def engines(self) -> Sequence[audio_pb2.EngineInfo]: ...


ListEngines = Callable[[], Awaitable[HasEngines]]


class EngineCatalogue:
    """Engines of one stage service, remembered for a moment."""

    def __init__(self, stage: str, list_engines: ListEngines) -> None:
        self._stage = stage
        self._list = list_engines
        self._known: Sequence[audio_pb2.EngineInfo] = ()
        self._asked = -_FRESH_SECONDS

    async def all(self) -> Sequence[audio_pb2.EngineInfo]:
        """All engines, the preferred first."""
        if time.monotonic() - self._asked > _FRESH_SECONDS:
            try:
                with outboard_errors():
                    self._known = list((await self._list()).engines)
            except DeadlineExceeded as error:
                raise Unavailable(f"the {self._stage} does not answer", retry_after_seconds=5.0) from error
            self._asked = time.monotonic()
        return self._known

    async def resolve(self, name: str, field: str, stem_count: int | None = None) -> audio_pb2.EngineInfo:
        """The engine of that name, or the preferred available one (for so many stems) where the name is empty.

        Raises:
            InvalidInput: ENGINE_UNKNOWN.
            FailedPrecondition: ENGINE_UNAVAILABLE, or MODEL_WEIGHTS_MISSING with the command that fetches them.
        """
        engines = await self.all()
        if not name:
            return self._preferred(engines, field, stem_count)
        found = next((engine for engine in engines if engine.name == name), None)
        if found is None:
            known = ", ".join(engine.name for engine in engines)
            hint = nearest(name[:_LONGEST_NAME], [engine.name for engine in engines])
            raise InvalidInput(
                f"the {self._stage} has no engine {name[:_LONGEST_NAME]!r}{hint}: it has {known}",
                reason="ENGINE_UNKNOWN",
                field=field,
            )
        if not found.available:
            raise _unavailable(found, field)
        return found

    async def automatic(self) -> list[audio_pb2.EngineInfo]:
        """Every available engine that does something, in order."""
        return [engine for engine in await self.all() if engine.available and engine.name != PASSTHROUGH]

    def _preferred(
        self, engines: Sequence[audio_pb2.EngineInfo], field: str, stem_count: int | None
    ) -> audio_pb2.EngineInfo:
        usable = [engine for engine in engines if engine.available and engine.name != PASSTHROUGH]
        for engine in usable:
            if stem_count is None or stem_count in engine.stem_counts:
                return engine
        for engine in engines:
            if not engine.available and stem_count in engine.stem_counts:
                raise _unavailable(engine, field)
        # Where none offers so many stems the stage itself says so.
        for engine in usable:
            return engine
        raise Unavailable(f"the {self._stage} has no engine that is available now", retry_after_seconds=5.0)


def _unavailable(engine: audio_pb2.EngineInfo, field: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the engine {engine.name!r} is not available: {engine.unavailable_reason}",
        reason=engine.unavailable_error or "ENGINE_UNAVAILABLE",
        field=field,
    )
