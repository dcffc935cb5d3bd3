"""The typed clients of the stages, against toy stages on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from outboard.client import MasterClient, MixerClient, RestorerClient, SeparatorClient, Stem
from outboard.errors import Unavailable
from outboard.testing import in_process
from outboard.v1 import separator_service_pb2
from tests.integration.toy_stages import Behaviour, Toys


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with in_process(Toys(Behaviour()).register, drain_seconds=0.5) as server:
        yield server.address


def _noise(frames: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(1).standard_normal((2, frames)).astype(np.float32)


async def test_each_stage_by_its_client(address: str) -> None:
    """Arrays go in and come out whole: stems sum to the song, a restored stem and a master are the song itself."""
    song = _noise(100_001)
    seen: list[float] = []
    async with SeparatorClient(address) as separator:
        assert [engine.name for engine in await separator.engines()] == ["toy"]
        stems, separation = await separator.separate(song, 48000, progress=seen.append)
    assert list(separation.stems) == ["vocals", "drums", "bass", "other"]
    assert np.array_equal(sum(stems.values()), song)
    assert seen[-1] == 1.0
    async with RestorerClient(address) as restorer:
        restored, _ = await restorer.restore(song, 48000)
    assert np.array_equal(restored, song)
    async with MasterClient(address) as master:
        files, report = await master.master(song, 48000)
    assert files["master.wav"][92:] == song.T.astype("<f4").tobytes()
    assert report.engine.name == "toy"


async def test_separation_streams(address: str) -> None:
    """Chunks of stems come while blocks of the song are still being sent."""
    song = _noise(400_000)
    sent = 0

    async def blocks() -> AsyncIterator[np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
        nonlocal sent
        for start in range(0, song.shape[1], 10_000):
            sent = start
            yield song[:, start : start + 10_000]

    config = separator_service_pb2.SeparateConfig()
    config.format.sample_rate_hertz, config.format.channels, config.format.frames = 48000, 2, song.shape[1]
    first = None
    async with SeparatorClient(address) as separator:
        async for _answer in separator.stream(blocks(), config):
            first = sent if first is None else first
    assert first is not None
    assert first < 390_000, f"the first chunk came after frame {first} of 400000 was sent"


async def test_stage_that_is_not_there() -> None:
    """A service that nobody runs is UNAVAILABLE, as one of Outboard's own errors."""
    async with MixerClient("unix:/nonexistent/socket") as mixer:
        with pytest.raises(Unavailable):
            await mixer.mix({"a": Stem(_noise(10))})
