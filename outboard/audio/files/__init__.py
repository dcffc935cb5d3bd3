"""Audio files: decoding of whatever users bring (in a child process, under limits), and encoding of what they get."""

from outboard.audio.files.decode import DecodedFile, DecodeLimits, DecodeWarning, decode
from outboard.audio.files.downmix import to_stereo
from outboard.audio.files.encode import EncodedFile, FileSpec, encode, recut
from outboard.audio.files.tags import Cover, Tags

__all__ = [
    "Cover",
    "DecodeLimits",
    "DecodeWarning",
    "DecodedFile",
    "EncodedFile",
    "FileSpec",
    "Tags",
    "decode",
    "encode",
    "recut",
    "to_stereo",
]
