"""Decodes an audio file of any supported format into a spool, in bounded memory, whatever the file holds.

The decoder runs in a child process (`decode_child.py`) under limits; here its samples are checked, brought to one or
two channels, resampled in a stream and spooled. The length is exact: encoder delay and padding are removed.

    wav (RF64 too), aiff, flac, mp3, m4a (AAC, ALAC), ogg (Vorbis), opus
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from outboard.audio.files.child import DecoderProcess
from outboard.audio.files.downmix import MAX_CHANNELS, downmix_matrix
from outboard.audio.files.tags import Cover, Tags, common_tags, cover_of
from outboard.audio.resample import StreamResampler
from outboard.audio.spool import Spool
from outboard.errors import Internal, InvalidInput, NotFound

PIPELINE_RATE_HERTZ = 48000
_LENGTH_TOLERANCE_SECONDS = 0.1
"""A file that ends this much before its header says is called truncated; less is rounding in the header."""


@dataclass(frozen=True)
class DecodeLimits:
    """What a file may ask for. Beyond the first four the decoder process is stopped: AUDIO_DECODE_LIMIT."""

    max_seconds: float = 7200.0
    max_channels: int = MAX_CHANNELS
    min_sample_rate_hertz: int = 8000
    max_sample_rate_hertz: int = 192000
    cpu_seconds: int = 600
    wall_seconds: float = 900.0
    memory_bytes: int = 1 << 30


@dataclass(frozen=True)
class DecodeWarning:
    """Something a person should know that did not stop the decoding.

    Codes: TRUNCATED (the file ends early; what is there was decoded), DAMAGED (parts could not be decoded and are
    silent),
    DOWNMIXED (3 to 8 channels became stereo by ITU-R BS.775).
    """

    code: str
    message: str


@dataclass(frozen=True)
class DecodedFile:
    """A decoded file: the audio in a spool, and what is known about the source. Close it, or use it in a `with`."""

    spool: Spool
    sample_rate_hertz: int
    frames: int
    channels: int
    source_sample_rate_hertz: int
    source_channels: int
    source_frames: int
    container: str
    codec: str
    tags: Tags
    warnings: tuple[DecodeWarning, ...]

    @property
    def array(self) -> NDArray[np.float32]:
        """The audio, mapped: float32 of shape (1 or 2, frames)."""
        return self.spool.array

    def close(self) -> None:
        """Gives up the spool."""
        self.spool.close()

    def __enter__(self) -> DecodedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def decode(
    path: Path,
    *,
    limits: DecodeLimits | None = None,
    sample_rate_hertz: int | None = PIPELINE_RATE_HERTZ,
    spool: Callable[[int], Spool] = Spool,
    field: str = "audio",
    progress: Callable[[float], None] | None = None,
) -> DecodedFile:
    """Decodes the file into a new spool.

    Args:
        path: the file; its name decides nothing, and no error message tells it.
        limits: see `DecodeLimits`.
        sample_rate_hertz: rate to convert to (soxr VHQ); None keeps the file's.
        spool: makes the spool for a number of channels.
        field: what errors call the file, as a path in the request.
        progress: told the decoded fraction after every block where the length is known beforehand, else 0; may raise.

    Returns:
        Mono stays one channel (`to_stereo` makes two of it), 3 to 8 channels are mixed to stereo; never clipped or
        rescaled.

    Raises:
        NotFound: no such file.
        InvalidInput: AUDIO_EMPTY, AUDIO_UNREADABLE, AUDIO_TOO_SHORT, AUDIO_TOO_LONG, AUDIO_TOO_MANY_CHANNELS,
            AUDIO_SAMPLE_RATE_UNSUPPORTED, AUDIO_NOT_FINITE, AUDIO_DECODE_LIMIT, each with `field`.
        ResourceExhausted: STORAGE_FULL, when the spool's disk is full.
    """
    with _open(path, field) as file:
        decoding = _Decoding(limits or DecodeLimits(), sample_rate_hertz, spool, field, progress)
        try:
            return decoding.run(file)
        except BaseException:
            decoding.discard()
            raise


class _Decoding:
    """What is known so far about one file on its way from the decoder to the spool."""

    def __init__(
        self,
        limits: DecodeLimits,
        sample_rate_hertz: int | None,
        make_spool: Callable[[int], Spool],
        field: str,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.limits = limits
        self.wanted_rate_hertz = sample_rate_hertz
        self.make_spool = make_spool
        self.field = field
        self.progress = progress
        self.facts: dict[str, Any] = {}
        self.spool: Spool | None = None
        self.resampler: StreamResampler | None = None
        self.matrix: NDArray[np.float32] | None = None
        self.cover: Cover | None = None
        self.source_frames = 0

    def discard(self) -> None:
        if self.spool is not None:
            self.spool.close()

    def run(self, file: IO[bytes]) -> DecodedFile:
        limits = self.limits
        with DecoderProcess(file, limits.cpu_seconds, limits.memory_bytes, limits.wall_seconds) as decoder:
            for kind, payload in decoder.messages(self.field):
                if kind == b"P":
                    self._samples(payload)
                elif kind == b"H":
                    self._header(json.loads(bytes(payload)))
                elif kind == b"C":
                    self.cover = cover_of(bytes(payload))
                elif kind == b"X":
                    raise self._refusal(json.loads(bytes(payload))["code"])
                elif kind == b"E":
                    return self._finish(json.loads(bytes(payload)))
        raise Internal("the decoder ended without an end")  # messages() raises before this can be reached

    def _header(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        rate, channels, limits = facts["sample_rate_hertz"], facts["channels"], self.limits
        if channels > limits.max_channels:
            raise self._invalid(
                f"the file has {channels} channels; 1 to {limits.max_channels} are allowed", "AUDIO_TOO_MANY_CHANNELS"
            )
        if not limits.min_sample_rate_hertz <= rate <= limits.max_sample_rate_hertz:
            allowed = f"{limits.min_sample_rate_hertz} to {limits.max_sample_rate_hertz} Hz are allowed"
            raise self._invalid(f"the sample rate is {rate} Hz; {allowed}", "AUDIO_SAMPLE_RATE_UNSUPPORTED")
        if facts["length_frames"] is not None:
            self._check_length(facts["length_frames"])
        self.matrix = downmix_matrix(facts["positions"])
        kept = min(channels, 2)
        self.resampler = StreamResampler(rate, self.wanted_rate_hertz or rate, kept)
        self.spool = self.make_spool(kept)

    def _samples(self, payload: memoryview) -> None:
        assert self.spool is not None
        assert self.resampler is not None
        samples: NDArray[np.float32] = np.frombuffer(payload, dtype=np.float32).reshape(-1, self.facts["channels"])
        if not np.isfinite(samples).all():
            raise self._invalid("the file has samples that are NaN or infinite", "AUDIO_NOT_FINITE")
        self.source_frames += len(samples)
        self._check_length(self.source_frames)
        block = samples.T if self.matrix is None else self.matrix @ samples.T
        self.spool.append(self.resampler.process(block))
        if self.progress is not None:
            expected = self.facts["length_frames"]
            self.progress(min(1.0, self.source_frames / expected) if expected else 0.0)

    def _finish(self, end: dict[str, Any]) -> DecodedFile:
        assert self.spool is not None
        assert self.resampler is not None
        if self.source_frames == 0:
            raise self._refusal("no_frames")
        self.spool.append(self.resampler.process(np.empty((self.spool.channels, 0), dtype=np.float32), last=True))
        if self.spool.frames == 0:
            raise self._invalid(
                f"{self.source_frames} frames are less than one at {self.resampler.to_hertz} Hz", "AUDIO_TOO_SHORT"
            )
        return DecodedFile(
            spool=self.spool,
            sample_rate_hertz=self.resampler.to_hertz,
            frames=self.spool.frames,
            channels=self.spool.channels,
            source_sample_rate_hertz=self.facts["sample_rate_hertz"],
            source_channels=self.facts["channels"],
            source_frames=self.source_frames,
            container=self.facts["container"],
            codec=self.facts["codec"],
            tags=Tags(common_tags(self.facts["tags"]), self.cover),
            warnings=self._warnings(end),
        )

    def _warnings(self, end: dict[str, Any]) -> tuple[DecodeWarning, ...]:
        found = []
        rate, announced = self.facts["sample_rate_hertz"], self.facts["length_frames"]
        missing = 0 if announced is None else announced - self.source_frames
        if end["short_file"] or missing > _LENGTH_TOLERANCE_SECONDS * rate:
            seconds = self.source_frames / rate
            found.append(DecodeWarning("TRUNCATED", f"the file ends early: {seconds:.1f} s of audio were there"))
        elif end["bad_packets"]:
            found.append(DecodeWarning("DAMAGED", f"{end['bad_packets']} pieces of the file could not be decoded"))
        if self.matrix is not None:
            found.append(DecodeWarning("DOWNMIXED", f"{self.facts['channels']} channels were mixed to stereo (BS.775)"))
        return tuple(found)

    def _check_length(self, frames: int) -> None:
        seconds = frames / self.facts["sample_rate_hertz"]
        if seconds > self.limits.max_seconds:
            allowed = f"at most {self.limits.max_seconds:.0f} s are allowed"
            raise self._invalid(f"the audio is at least {seconds:.0f} s long; {allowed}", "AUDIO_TOO_LONG")

    def _refusal(self, code: str) -> InvalidInput:
        reason, message = _REFUSALS.get(code, _REFUSALS["unreadable"])
        return self._invalid(message, reason)

    def _invalid(self, message: str, reason: str) -> InvalidInput:
        return InvalidInput(message, reason=reason, field=self.field)


_FORMATS = "wav, aiff, flac, mp3, m4a, ogg and opus are understood"
_REFUSALS = {
    "empty": ("AUDIO_EMPTY", "the file is empty (0 bytes)"),
    "no_frames": ("AUDIO_EMPTY", "the file holds no audio (0 frames)"),
    "no_audio": ("AUDIO_UNREADABLE", f"the file has no audio track that is complete; {_FORMATS}"),
    "unreadable": ("AUDIO_UNREADABLE", f"the file is not audio that can be decoded; {_FORMATS}"),
    "codec": ("AUDIO_UNREADABLE", f"the audio track is coded in a way that is not supported; {_FORMATS}"),
    "format_changes": ("AUDIO_UNREADABLE", "the sample rate or the number of channels changes within the file"),
    "memory": ("AUDIO_DECODE_LIMIT", "decoding the file takes more memory than allowed"),
}


def _open(path: Path, field: str) -> IO[bytes]:
    try:
        return Path(path).open("rb", buffering=0)
    except FileNotFoundError:
        raise NotFound("the file does not exist", field=field) from None
    except OSError as error:
        what = "a folder" if error.errno == errno.EISDIR else "not a file that can be opened"
        raise InvalidInput(f"expected an audio file, this is {what}", reason="AUDIO_UNREADABLE", field=field) from None
