"""Whole generated songs through the whole mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.client import Client
from outboard.v1 import master_service_pb2 as v1
from tests.songs import SONGS, check_delivery, check_pathologies, deliver

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

WAV = v1.DeliverableSpec(name="master", container=v1.CONTAINER_WAV, bit_depth=v1.BIT_DEPTH_24, sample_rate_hertz=48_000)
FLAC = v1.DeliverableSpec(
    name="master", container=v1.CONTAINER_FLAC, bit_depth=v1.BIT_DEPTH_16, sample_rate_hertz=44_100
)
MP3 = v1.DeliverableSpec(name="master", container=v1.CONTAINER_MP3, sample_rate_hertz=48_000, bitrate_kbps=320)


@pytest.mark.parametrize("song", SONGS)
@pytest.mark.parametrize(("spec", "tolerance_db"), [(WAV, 0.05), (FLAC, 0.05), (MP3, 0.2)], ids=["wav", "flac", "mp3"])
def test_song(
    song: str, spec: v1.DeliverableSpec, tolerance_db: float, mesh_client: Client, test_data: Path, tmp_path: Path
) -> None:
    """The file is within 0.2 LU of -14 LUFS, under its ceiling, of the song's length; no pathology is worse."""
    delivered = deliver(mesh_client, test_data / "songs" / song, tmp_path, spec)
    check_delivery(delivered, target_lufs=-14.0, ceiling_dbtp=-1.0, tolerance_db=tolerance_db)
    check_pathologies(delivered)
