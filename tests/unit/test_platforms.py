"""Platform profiles: within what the master can do, found by name, and never stronger than what a request sets."""

from __future__ import annotations

import pytest

from outboard.errors import InvalidInput
from outboard.presets.platforms import PLATFORMS, platform
from outboard.v1 import master_service_pb2 as messages
from services.master.settings import DeliverableSpec, MasterSettings, check_settings
from services.orchestrator.presets import resolve_platform


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_profile_can_be_mastered_for(name: str) -> None:
    """Targets, ceilings and formats pass the master's own check."""
    found = platform(name)
    spec = DeliverableSpec("master", found.container, found.sample_rate_hertz, found.bit_depth)
    check_settings(MasterSettings(target_lufs=found.target_lufs, ceiling_dbtp=found.ceiling_dbtp, deliverables=(spec,)))


def test_numbers_of_the_standards() -> None:
    """EBU R 128 is -23 LUFS at 48 kHz; Spotify's own text says -14 and -1."""
    assert (platform("broadcast").target_lufs, platform("broadcast").sample_rate_hertz) == (-23.0, 48_000)
    assert (platform("spotify").target_lufs, platform("spotify").ceiling_dbtp) == (-14.0, -1.0)


def test_request_goes_before_profile() -> None:
    """What a request sets stays; only what it leaves open comes from the profile, whose name stays for the report."""
    settings = messages.MasterSettings(profile="deezer", target_lufs=-12.0)
    resolve_platform(settings)
    assert settings.target_lufs == -12.0
    assert settings.ceiling_dbtp == -1.0
    assert settings.deliverables[0].container == messages.CONTAINER_FLAC
    assert settings.deliverables[0].sample_rate_hertz == 44_100
    assert settings.profile == "deezer"


def test_unknown_and_contradictory_profiles_are_told() -> None:
    """A mistyped name suggests the nearest; the loud intent contradicts any platform."""
    with pytest.raises(InvalidInput, match="did you mean 'spotify'") as caught:
        resolve_platform(messages.MasterSettings(profile="spottify"))
    assert caught.value.reason == "PRESET_UNKNOWN"
    with pytest.raises(InvalidInput, match="choose one") as conflict:
        resolve_platform(messages.MasterSettings(profile="spotify", intent=messages.MASTER_INTENT_LOUD))
    assert conflict.value.reason == "OPTIONS_CONFLICT"
