"""A neural engine behind a real server, with tiny weights in the production layout."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from outboard.client import SeparatorClient
from outboard.errors import FailedPrecondition
from outboard.settings import Settings
from outboard.testing import in_process
from outboard.v1 import analysis_pb2, separator_service_pb2
from outboard.v1.separator_service_pb2_grpc import add_SeparatorServiceServicer_to_server
from services.separator import deployment
from services.separator.servicer import SeparatorServicer
from tests.tiny_models import write_models

SettingsMessage = separator_service_pb2.SeparationSettings
EXACT = separator_service_pb2.SPEED_POLICY_EXACT  # by torch: no export has to be made


@pytest.fixture
async def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    write_models(tmp_path, ("htdemucs_ft_drums", "htdemucs_ft_bass", "htdemucs_ft_other", "htdemucs_ft_vocals"))
    monkeypatch.setenv("OUTBOARD_MODELS", str(tmp_path))
    deployment._inference.cache_clear()
    servicer = SeparatorServicer(Settings(), deployment.engines(Settings()))
    register = functools.partial(add_SeparatorServiceServicer_to_server, servicer)
    async with in_process(register, drain_seconds=0.5) as server:
        yield server.address
    deployment._inference.cache_clear()


def song(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((2, round(seconds * 48_000))).astype(np.float32) * np.float32(0.1)


async def test_the_bag_is_the_default_once_its_weights_are_there(address: str) -> None:
    """Two stems of 9 s at 48 kHz: the engine without being named, its report, stems that sum to the song."""
    audio = song(9.0)
    facts = analysis_pb2.SongFacts(mean=0.0, deviation=0.07)
    async with SeparatorClient(address) as separator:
        engines = {engine.name: engine for engine in await separator.engines()}
        stems, report = await separator.separate(audio, 48_000, SettingsMessage(stem_count=2, speed=EXACT), facts=facts)
    assert next(iter(engines)) == report.engine.name == "htdemucs_ft"
    assert engines["htdemucs_ft"].available
    assert len(report.engine.weights_digest) == 64
    assert (report.engine.backend, report.engine.device, report.engine.precision) == ("torch", "cpu", "float32")
    assert list(report.stems) == ["vocals", "instrumental"]
    assert report.run.real_time_factor > 0
    assert np.any(stems["vocals"])
    error = float(np.max(np.abs(sum(stems.values()) - audio)))
    assert error < 10 ** (-90 / 20), f"stems miss the song by {error:.2e}"


async def test_weights_that_cannot_be_read_take_no_other_engine_away(tmp_path: Path, address: str) -> None:
    """A lock that the system does not let be read makes its engine unavailable with the reason; the others are listed,
    and a song that names none is separated by the next of them.
    """
    (tmp_path / "htdemucs_ft" / "weights.lock.json").mkdir()
    async with SeparatorClient(address) as separator:
        engines = {engine.name: engine for engine in await separator.engines()}
        _, report = await separator.separate(song(1.0), 48_000, SettingsMessage())
    found = engines["htdemucs_ft"]
    assert (found.available, found.unavailable_error) == (False, "MODEL_WEIGHTS_INVALID")
    assert engines["spectral"].available
    assert report.engine.name == "spectral"


async def test_an_engine_without_weights_says_which_command_fetches_them(address: str) -> None:
    """Listed with the reason; named, it is refused with MODEL_WEIGHTS_MISSING before any audio is sent."""
    async with SeparatorClient(address) as separator:
        listed = {engine.name: engine for engine in await separator.engines()}["htdemucs_6s"]
        with pytest.raises(FailedPrecondition, match="outboard models pull htdemucs_6s") as error:
            await separator.separate(song(0.5), 48_000, SettingsMessage(engine="htdemucs_6s"))
    assert error.value.reason == "MODEL_WEIGHTS_MISSING"
    assert (listed.available, listed.unavailable_error) == (False, "MODEL_WEIGHTS_MISSING")
    assert list(listed.stem_counts) == [2, 4, 5, 6]
