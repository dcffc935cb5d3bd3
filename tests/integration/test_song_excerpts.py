"""Twenty seconds of every generated song through the whole mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.audio.files import FileSpec, decode, encode
from outboard.client import Client
from outboard.v1 import master_service_pb2 as v1
from tests.songs import SONGS, check_delivery, check_pathologies, deliver

WAV = v1.DeliverableSpec(name="master", container=v1.CONTAINER_WAV, bit_depth=v1.BIT_DEPTH_24, sample_rate_hertz=48_000)
MP3 = v1.DeliverableSpec(name="master", container=v1.CONTAINER_MP3, sample_rate_hertz=44_100, bitrate_kbps=320)


def excerpt(song: Path, folder: Path, start_seconds: float = 30.0, seconds: float = 20.0) -> Path:
    """A part of a song at its own rate, as a float wav."""
    path = folder / f"{song.stem}.wav"
    with decode(song, sample_rate_hertz=None) as decoded:
        rate = decoded.sample_rate_hertz
        part = decoded.array[:, int(start_seconds * rate) : int((start_seconds + seconds) * rate)].copy()
    encode(path, [part], rate, FileSpec("wav", "32f"))
    return path


@pytest.mark.parametrize("song", SONGS)
def test_song_excerpt(song: str, mesh_client: Client, test_data: Path, tmp_path: Path) -> None:
    """The wav is within 0.2 LU of -14 LUFS, under its ceiling, of the input's length; no pathology is worse."""
    delivered = deliver(mesh_client, excerpt(test_data / "songs" / song, tmp_path), tmp_path, WAV)
    check_delivery(delivered, target_lufs=-14.0, ceiling_dbtp=-1.0, tolerance_db=0.05)
    check_pathologies(delivered)


def test_mp3_delivery(mesh_client: Client, test_data: Path, tmp_path: Path) -> None:
    """An mp3 at another rate keeps its ceiling within 0.2 dB and decodes, gapless, to the input's length."""
    delivered = deliver(mesh_client, excerpt(test_data / "songs" / SONGS[3], tmp_path), tmp_path, MP3)
    check_delivery(delivered, target_lufs=-14.0, ceiling_dbtp=-1.0, tolerance_db=0.2)
