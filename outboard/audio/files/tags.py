"""Metadata that travels with a song: text tags under common names, and one cover picture."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

VORBIS_NAMES = {
    "title": "TITLE",
    "artist": "ARTIST",
    "album": "ALBUM",
    "album_artist": "ALBUMARTIST",
    "composer": "COMPOSER",
    "genre": "GENRE",
    "date": "DATE",
    "track": "TRACKNUMBER",
    "disc": "DISCNUMBER",
    "comment": "COMMENT",
    "copyright": "COPYRIGHT",
    "publisher": "ORGANIZATION",
    "isrc": "ISRC",
    "bpm": "BPM",
    "lyrics": "LYRICS",
}
"""The tags that are carried over, and what Vorbis comments (FLAC) call them. Everything else describes the source file
and not the
song (encoder, brands, gapless data) or would be wrong for a master (ReplayGain)."""

ID3_NAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "album_artist": "TPE2",
    "composer": "TCOM",
    "genre": "TCON",
    "date": "TDRC",
    "track": "TRCK",
    "disc": "TPOS",
    "copyright": "TCOP",
    "publisher": "TPUB",
    "isrc": "TSRC",
    "bpm": "TBPM",
}
"""Text frames of ID3v2.4; comment (COMM) and lyrics (USLT) have a form of their own."""

RIFF_NAMES = {
    "title": b"INAM",
    "artist": b"IART",
    "album": b"IPRD",
    "genre": b"IGNR",
    "date": b"ICRD",
    "track": b"IPRT",
    "comment": b"ICMT",
    "copyright": b"ICOP",
}
"""What a RIFF INFO list can hold; the rest is in the ID3 chunk beside it."""

_OTHER_NAMES = {
    "year": "date",
    "albumartist": "album_artist",
    "album artist": "album_artist",
    "tracknumber": "track",
    "discnumber": "disc",
    "organization": "publisher",
    "label": "publisher",
    "description": "comment",
    "tsrc": "isrc",
    "tbpm": "bpm",
    "tempo": "bpm",
    "unsyncedlyrics": "lyrics",
}
_MAX_CHARACTERS = 16384
_PICTURE_KINDS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
_FRONT_COVER = 3


@dataclass(frozen=True)
class Cover:
    """A cover picture as it stands in the file; `mime` is image/jpeg or image/png."""

    mime: str
    data: bytes


@dataclass(frozen=True)
class Tags:
    """Text tags by common name (the keys of `VORBIS_NAMES`), and the cover where there is one."""

    text: Mapping[str, str] = field(default_factory=dict)
    cover: Cover | None = None

    def __bool__(self) -> bool:
        return bool(self.text) or self.cover is not None


def common_tags(raw: Mapping[str, str]) -> dict[str, str]:
    """Brings a file's own tag names to the common ones, sorted; leaves out what does not travel with the song."""
    found: dict[str, str] = {}
    for name, value in raw.items():
        lowered = name.lower().partition("-")[0] if name.lower().startswith("lyrics-") else name.lower()
        common = _OTHER_NAMES.get(lowered, lowered)
        text = value.replace("\0", " ").strip()[:_MAX_CHARACTERS]
        if common in VORBIS_NAMES and text:
            found.setdefault(common, text)
    return dict(sorted(found.items()))


def cover_of(data: bytes) -> Cover | None:
    """The picture, if it is a JPEG or a PNG by its first bytes."""
    return next((Cover(mime, data) for magic, mime in _PICTURE_KINDS if data.startswith(magic)), None)


def id3v2(tags: Tags) -> bytes:
    """An ID3v2.4 tag (id3.org, "ID3 tag version 2.4.0"), UTF-8; empty when there is nothing to say."""
    if not tags:
        return b""
    frames = []
    for name, value in sorted(tags.text.items()):
        text = value.encode()
        if name in ID3_NAMES:
            frames.append(_id3_frame(ID3_NAMES[name], b"\x03" + text))
        elif name in ("comment", "lyrics"):
            frames.append(_id3_frame("COMM" if name == "comment" else "USLT", b"\x03und\x00" + text))
    if tags.cover is not None:
        mime = tags.cover.mime.encode()
        picture = b"\x03" + mime + b"\x00" + bytes([_FRONT_COVER]) + b"\x00" + tags.cover.data
        frames.append(_id3_frame("APIC", picture))
    body = b"".join(frames)
    return b"ID3\x04\x00\x00" + _synchsafe(len(body)) + body


def vorbis_comment(tags: Tags, vendor: str) -> bytes:
    """The body of a VORBIS_COMMENT block (Xiph, "Ogg Vorbis I format specification: comment field")."""
    entries = [f"{VORBIS_NAMES[name]}={value}".encode() for name, value in sorted(tags.text.items())]
    parts = [struct.pack("<I", len(vendor.encode())), vendor.encode(), struct.pack("<I", len(entries))]
    for entry in entries:
        parts += [struct.pack("<I", len(entry)), entry]
    return b"".join(parts)


def flac_picture(cover: Cover) -> bytes:
    """The body of a FLAC PICTURE block (RFC 9639, section 8.8). Sizes stay 0 (unknown): the picture is not opened."""
    mime = cover.mime.encode()
    head = struct.pack(">II", _FRONT_COVER, len(mime)) + mime + struct.pack(">I", 0)
    return head + struct.pack(">IIIII", 0, 0, 0, 0, len(cover.data)) + cover.data


def riff_chunks(tags: Tags) -> bytes:
    """The chunks of a WAV file that carry tags: a LIST of type INFO, and an ID3 chunk with all of them and the
    cover."""
    if not tags:
        return b""
    items = b"".join(
        _riff_chunk(RIFF_NAMES[name], value.encode() + b"\x00")
        for name, value in sorted(tags.text.items())
        if name in RIFF_NAMES
    )
    info = _riff_chunk(b"LIST", b"INFO" + items) if items else b""
    return info + _riff_chunk(b"id3 ", id3v2(tags))


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)


def _id3_frame(name: str, body: bytes) -> bytes:
    return name.encode() + _synchsafe(len(body)) + b"\x00\x00" + body


def _synchsafe(size: int) -> bytes:
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
