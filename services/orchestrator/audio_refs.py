"""What steps hand to each other: where audio lies, and what it is. Small, so that the workflow's database stays so."""

from __future__ import annotations

from dataclasses import dataclass

from outboard.v1 import audio_pb2
from services.orchestrator.results import Result


@dataclass(frozen=True)
class AudioRef:
    """Stored audio (float WAV): its object, digest and layout, and what it plays."""

    name: str
    role: int
    key: str
    sha256: str
    frames: int
    channels: int
    sample_rate_hertz: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate_hertz

    def format(self) -> audio_pb2.AudioFormat:
        """Layout for a stage's config."""
        return audio_pb2.AudioFormat(
            sample_rate_hertz=self.sample_rate_hertz, channels=self.channels, frames=self.frames
        )


def audio_ref(result: Result, object_name: str, name: str, role: int) -> AudioRef:
    """The reference to one audio object of a result."""
    stored = result.objects[object_name]
    layout = result.facts["audio"]
    return AudioRef(
        name, role, stored.key, stored.sha256, layout["frames"], layout["channels"], layout["sample_rate_hertz"]
    )


SEPARATED_ROLES = {
    "vocals": audio_pb2.ROLE_LEAD_VOCAL,
    "drums": audio_pb2.ROLE_DRUMS,
    "bass": audio_pb2.ROLE_BASS,
    "piano": audio_pb2.ROLE_KEYS,
    "guitar": audio_pb2.ROLE_GUITAR,
    "other": audio_pb2.ROLE_OTHER,
    "instrumental": audio_pb2.ROLE_OTHER,
}
"""What separated stems play."""
