"""A master that is told what was measured on the mix does not measure it again, and answers as if it had."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.errors import InvalidInput
from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.convert import to_message
from outboard.rpc.streaming import Audio, chunk_messages
from outboard.settings import LimitSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import analysis_pb2, audio_pb2, master_service_pb2, master_service_pb2_grpc
from services.master import __main__ as service
from services.master import servicer

RATE_HERTZ = 48_000


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    settings = Settings(limits=LimitSettings(concurrent_renders=1), spool=SpoolSettings(directory=tmp_path))
    async with in_process(service.build(settings), settings) as server, aio_channel(server.address) as channel:
        yield master_service_pb2_grpc.MasterServiceStub(channel)


async def _master(stub: Any, song: Audio, analysis: analysis_pb2.Analysis | None) -> tuple[bytes, Any]:
    layout = audio_pb2.AudioFormat(sample_rate_hertz=RATE_HERTZ, channels=2, frames=song.shape[1])
    config = master_service_pb2.MasterConfig(format=layout, analysis=analysis)
    requests = [master_service_pb2.MasterRequest(config=config)]
    requests += [master_service_pb2.MasterRequest(chunk=chunk) for chunk in chunk_messages(song)]
    data, report = b"", None
    async with contextlib.aclosing(exchange(stub.Master, requests, timeout_seconds=100)) as responses:
        async for response in responses:
            data += response.chunk.data
            report = response.report if response.HasField("report") else None
    assert report is not None
    report.ClearField("run")
    return data, report


async def test_known_analysis_gives_the_same_master(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes and the same report, without a second analysis of the mix."""
    song = synthesise(31, 4.0).song
    expected = await _master(stub, song, None)
    known = to_message(analyze(song, RATE_HERTZ), analysis_pb2.Analysis)
    monkeypatch.setattr(servicer, "analyze", lambda *_, **__: pytest.fail("the mix was measured again"))
    assert await _master(stub, song, known) == expected


async def test_analysis_of_other_audio_is_refused(stub: Any) -> None:
    """Measurements whose length is not the mix's are INVALID_ARGUMENT and name their field."""
    song = synthesise(31, 4.0).song
    other = to_message(analyze(song[:, :RATE_HERTZ], RATE_HERTZ), analysis_pb2.Analysis)
    with pytest.raises(InvalidInput) as caught:
        await _master(stub, song, other)
    assert caught.value.violations[0].field == "config.analysis"
