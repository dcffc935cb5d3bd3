"""Platform profiles: what a platform plays back at, the ceiling it asks for, and the file it takes.

A profile is resolved once, when a job is created, like a preset; the master receives its numbers. What a request sets
itself goes before the profile. Platforms change their mind: every number has its source beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from outboard.errors import InvalidInput
from outboard.presets import nearest

__all__ = ["PLATFORMS", "PlatformProfile", "platform"]

_LONGEST_NAME = 100


@dataclass(frozen=True)
class PlatformProfile:
    """Targets of one platform.

    Attributes:
        title: what a person calls it.
        target_lufs: integrated loudness to deliver at.
        ceiling_dbtp: true peak not to exceed.
        container: "wav", "flac" or "mp3".
        sample_rate_hertz: of the file.
        bit_depth: "16", "24" or "32f".
    """

    title: str
    target_lufs: float
    ceiling_dbtp: float
    container: str = "wav"
    sample_rate_hertz: int = 44_100
    bit_depth: str = "24"


PLATFORMS: dict[str, PlatformProfile] = {
    # Spotify for Artists, "Loudness normalization": "target the loudness level of your master at -14dB integrated LUFS
    # and keep it below -1dB TP (True Peak) max"; "Audio file formats": FLAC or WAV, 24 bit, 44.1 kHz recommended.
    "spotify": PlatformProfile("Spotify", -14.0, -1.0),
    # Sound Check plays back at -16 LUFS (AES TD1008, 2021, and Apple Music's macOS default since 2022); "Apple Digital
    # Masters" technology brief: 24-bit masters at their native rate, 1 dB of headroom for the AAC encoder.
    "apple-music": PlatformProfile("Apple Music", -16.0, -1.0),
    # YouTube documents no number; "stats for nerds" shows content loudness against -14 LUFS, and only turns down.
    # Ceiling: AES TD1008 (2021), -1 dBTP for lossy distribution. Upload help: 24-bit PCM, 48 kHz.
    "youtube": PlatformProfile("YouTube", -14.0, -1.0, sample_rate_hertz=48_000),
    # TIDAL normalises albums to -14 LUFS by their loudest song (E. Grimm, "Analyzing Loudness Aspects of 4.2 million
    # Music Albums", AES 2019, adopted 2017). Ceiling: AES TD1008. Lossless delivery: FLAC.
    "tidal": PlatformProfile("TIDAL", -14.0, -1.0, container="flac"),
    # Amazon, loudness requirements for audio on its devices and Amazon Music: -14 LUFS, true peak at most -2 dBTP.
    "amazon": PlatformProfile("Amazon Music", -14.0, -2.0),
    # Deezer plays back at -15 LUFS (its normalisation is ReplayGain 2, computed by BS.1770, at -15). Ceiling: TD1008.
    "deezer": PlatformProfile("Deezer", -15.0, -1.0, container="flac"),
    # No standard: nothing normalises a club's mixer, and what is played there measures -10 to -7 LUFS. -9 leaves its
    # punch to most songs; -0.5 dBTP because it is played from PCM, not coded.
    "club": PlatformProfile("Club", -9.0, -0.5),
    # EBU R 128 (version 5, 2023): programme loudness -23.0 LUFS, true peak at most -1 dBTP; EBU Tech 3343: 48 kHz.
    "broadcast": PlatformProfile("Broadcast (EBU R 128)", -23.0, -1.0, sample_rate_hertz=48_000),
}
"""By the name that requests use."""


def platform(name: str) -> PlatformProfile:
    """A profile by name.

    Raises:
        InvalidInput: PRESET_UNKNOWN; the nearest is suggested.
    """
    if name in PLATFORMS:
        return PLATFORMS[name]
    short = name[:_LONGEST_NAME]
    message = f"there is no platform {short!r}{nearest(short, PLATFORMS)}: there are {', '.join(PLATFORMS)}"
    raise InvalidInput(message, reason="PRESET_UNKNOWN", field="platform")
