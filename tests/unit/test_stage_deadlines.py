"""How long the orchestrator waits for a stage."""

from __future__ import annotations

import pytest

from outboard.audio.stems import MAXIMUM_STEMS
from outboard.models.audiosr import served
from outboard.settings import ServerSettings
from outboard.v1 import audio_pb2
from services.orchestrator.audio_refs import AudioRef
from services.orchestrator.steps import (
    ENGINE_HANGS_SECONDS,
    LONGEST_QUEUE_SECONDS,
    RESTORATION_ATTEMPTS,
    restorer_patience,
    separator_patience,
)
from services.restorer import superresolution, voice
from services.separator import hybrid


def _stem(seconds: float) -> AudioRef:
    return AudioRef("vocals", audio_pb2.ROLE_LEAD_VOCAL, "key", "0" * 64, round(48_000 * seconds), 2, 48_000)


@pytest.mark.parametrize("seconds", [1.0, 240.0, 7_200.0])
def test_a_call_of_the_restorer_outlasts_its_slowest_engine(seconds: float) -> None:
    """Twelve stems on one render slot, each with a network that hangs in every attempt, are given up by the restorer
    (which then takes another engine) and not by a deadline of the call, and there is time left for the work itself. No
    server cuts that deadline short.
    """
    attempts = max(len(superresolution.ATTEMPTS), len(voice.BLOCK_HOPS))
    hangs_seconds = max(superresolution.HUNG_SECONDS, served.HUNG_SECONDS)
    assert (attempts, hangs_seconds) == (RESTORATION_ATTEMPTS, ENGINE_HANGS_SECONDS)
    patience = restorer_patience(_stem(seconds))
    left = patience - MAXIMUM_STEMS * attempts * hangs_seconds
    assert left >= MAXIMUM_STEMS * 0.5 * seconds, f"{left:.0f} s for {MAXIMUM_STEMS} stems of {seconds:.0f} s"
    assert patience < ServerSettings().maximum_deadline_seconds, f"{patience:.0f} s"


@pytest.mark.parametrize("seconds", [1.0, 240.0, 7_200.0])
def test_a_call_of_the_separator_outlasts_a_day_in_its_queues(seconds: float) -> None:
    """A song that waited a day for its turn, and then meets a model that hangs, is given up by the separator and not by
    a deadline of the call. No server cuts that deadline short.
    """
    assert hybrid.HUNG_SECONDS == ENGINE_HANGS_SECONDS
    patience = separator_patience(_stem(seconds))
    left = patience - LONGEST_QUEUE_SECONDS - hybrid.HUNG_SECONDS
    assert left >= 0.5 * seconds, f"{left:.0f} s for a song of {seconds:.0f} s"
    assert patience < ServerSettings().maximum_deadline_seconds, f"{patience:.0f} s"
