"""Decodes one audio file in a process of its own: the file on standard input, messages on standard output.

Decoders are the widest door that hostile bytes have, so they get a process with nothing in it: no file name, no
environment, no other files, limits on processor time and memory, no right to write a file. `decode.py` starts this
script by its location (importing the package would load what a decoder does not need) and checks everything that it
says.

A message is one kind byte, the length as little-endian uint32, and that many bytes:

    S  the decoder is loaded                            H  JSON facts about the stream, with the first decoded frame
    P  interleaved native float32 samples               C  the cover picture as it stands in the file
    E  JSON: the end, and what was damaged              X  JSON: the file cannot be decoded, and why

Gapless playback is done here, with libavcodec's own trimming switched off ("skip_manual"), since that loses the end of
some Vorbis files and leaves the padding of AAC: encoder delay and padding come from the skip side data (LAME's Info
tag, the Opus header, MP4 edit lists), the end of Vorbis from the last granule position, the end of AAC from iTunSMPB or
the last sample's duration.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any

DEMUXERS = "wav,aiff,flac,mp3,mov,ogg"
_PCM = ("u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be", "f64le", "f64be")
_CODED = ("pcm_alaw", "pcm_mulaw", "flac", "alac", "mp3", "mp3float", "aac", "vorbis", "opus", "libopus")
CODECS = frozenset([*(f"pcm_{layout}" for layout in _PCM), *_CODED])
BATCH_BYTES = 1 << 18
"""Samples are sent in messages of about this size."""

TAIL_FRAMES = 16384
"""Frames kept back until the end is known: more than the padding that any of the codecs leaves."""

MAX_COVER_BYTES = 15 << 20  # a FLAC picture block cannot hold more than 16 MiB
MAX_TAGS = 128
MAX_TAG_CHARACTERS = 16384
MAX_SILENT_FRAMES = 65536
"""A packet that cannot be decoded is replaced by as much silence as it says, up to this."""


class RefusedError(Exception):
    """The file cannot be decoded; the argument is a code that `decode.py` knows."""


def main() -> None:
    """Decodes standard input with the limits that the arguments give: processor seconds and bytes of memory."""
    cpu_seconds, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _set_limits(cpu_seconds, memory_bytes)
    try:
        _decode()
    except RefusedError as refusal:
        _send_json(b"X", {"code": str(refusal)})
    except MemoryError:
        _send_json(b"X", {"code": "memory"})


def _set_limits(cpu_seconds: int, memory_bytes: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (wanted, wanted))


def _decode() -> None:
    import av  # after the limits are set

    av.logging.set_level(av.logging.PANIC)
    _send(b"S", b"")
    file = open(0, "rb", closefd=False)  # noqa: SIM115 - standard input stays open as long as the process
    if os.fstat(0).st_size == 0:
        raise RefusedError("empty")
    options = {"format_whitelist": DEMUXERS, "codec_whitelist": ",".join(sorted(CODECS)), "enable_drefs": "0"}
    try:
        container = av.open(file, options=options, metadata_errors="replace", buffer_size=1 << 20)
    except (av.FFmpegError, ValueError) as error:
        raise RefusedError("unreadable") from error
    if not container.streams.audio:
        raise RefusedError("no_audio")
    stream = container.streams.audio[0]
    if stream.codec_context is None or stream.codec_context.name not in CODECS:
        raise RefusedError("codec")
    stream.codec_context.options = {"flags2": "+skip_manual"}
    stream.codec_context.thread_count = 1
    Decoding(av, container, stream).run()


class Decoding:
    """One file on its way: the trimming, the batches and the facts for the parent."""

    def __init__(self, av: Any, container: Any, stream: Any) -> None:
        self.av = av
        self.container = container
        self.stream = stream
        self.converter: Any = None
        self.rate = 0
        self.channels = 0
        self.frame_bytes = 0
        self.length_frames: int | None = None
        self.pending = bytearray()
        self.skip_frames = 0  # still to be dropped at the start
        self.frames = 0  # after the start was dropped
        self.end_discard_frames = 0  # announced by the side data of the last frames
        self.last_duration_gap_frames = 0  # by how much the last frame is longer than its packet claims
        self.silent_frames = 0  # owed for packets that could not be decoded
        self.good_packets = 0
        self.bad_packets = 0

    def run(self) -> None:
        for frame in self._frames():
            self._take(frame)
        if self.converter is None or self.bad_packets > self.good_packets:
            raise RefusedError("unreadable" if self.bad_packets else "no_frames")
        excess = min(self._excess_frames(), len(self.pending) // self.frame_bytes)
        if excess:
            del self.pending[-excess * self.frame_bytes :]
        self._flush(0)
        _send_json(b"E", {"bad_packets": self.bad_packets, "short_file": _container_is_cut()})

    def _frames(self) -> Iterator[Any]:
        pictures = [s for s in self.container.streams.video if s.disposition & self.av.stream.Disposition.attached_pic]
        packets = self.container.demux([self.stream, *pictures[:1]])
        while True:
            try:
                packet = next(packets, None)
            except self.av.FFmpegError:  # the file ends in the middle of something
                self.bad_packets += 1
                return
            if packet is None:
                return
            if packet.stream is not self.stream:
                if 0 < packet.size <= MAX_COVER_BYTES:
                    _send(b"C", bytes(packet))
                continue
            try:
                frames = packet.decode()
            except self.av.FFmpegError:
                self._note_bad(packet)
                continue
            self.good_packets += 1
            yield from frames

    def _note_bad(self, packet: Any) -> None:
        self.bad_packets += 1
        duration = packet.duration or 0
        frames = round(duration * self.stream.time_base * self.stream.rate) if packet.time_base else 0
        self.silent_frames += frames if 0 < frames <= MAX_SILENT_FRAMES else 0

    def _take(self, frame: Any) -> None:
        start, end = _skip_samples(frame)
        self.skip_frames += start
        self.end_discard_frames = self.end_discard_frames + end if end else 0
        self.last_duration_gap_frames = 0
        if frame.duration and frame.time_base:
            self.last_duration_gap_frames = max(
                0, frame.samples - round(frame.duration * frame.time_base * frame.sample_rate)
            )
        if self.converter is None:
            self._begin(frame, gapless_facts=start > 0)
        elif frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
            raise RefusedError("format_changes")
        if self.silent_frames:
            self._add(bytes(self.silent_frames * self.frame_bytes))
            self.silent_frames = 0
        for converted in self.converter.resample(frame):
            size = converted.samples * self.frame_bytes
            self._add(memoryview(converted.planes[0])[:size])

    def _begin(self, frame: Any, gapless_facts: bool) -> None:
        self.rate = frame.sample_rate
        self.channels = frame.layout.nb_channels
        self.frame_bytes = 4 * self.channels
        self.converter = self.av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
        self.length_frames = self._announced_frames(gapless_facts)
        _send_json(
            b"H",
            {
                "sample_rate_hertz": self.rate,
                "channels": self.channels,
                "positions": [channel.name for channel in frame.layout.channels],
                "codec": self.stream.codec_context.name,
                "container": self.container.format.name.split(",")[0],
                "length_frames": self.length_frames,
                "tags": self._tags(),
            },
        )

    def _announced_frames(self, gapless_facts: bool) -> int | None:
        """The length in the header where it can be relied on: an MP3 without an Info tag only has an estimate."""
        itunes = _itunes_length(self.container.metadata.get("iTunSMPB", ""))
        if itunes:
            return itunes
        if self.stream.duration is None or (self.container.format.name == "mp3" and not gapless_facts):
            return None
        return max(0, round(float(self.stream.duration * self.stream.time_base * self.rate)))

    def _tags(self) -> dict[str, str]:
        merged = {**self.container.metadata, **self.stream.metadata}
        return {key: value[:MAX_TAG_CHARACTERS] for key, value in list(merged.items())[:MAX_TAGS] if len(key) <= 64}

    def _add(self, samples: bytes | memoryview) -> None:
        dropped = min(self.skip_frames, len(samples) // self.frame_bytes)
        self.skip_frames -= dropped
        kept = memoryview(samples)[dropped * self.frame_bytes :]
        self.frames += len(kept) // self.frame_bytes
        self.pending += kept
        if len(self.pending) >= BATCH_BYTES + TAIL_FRAMES * self.frame_bytes:
            self._flush(TAIL_FRAMES)

    def _flush(self, keep_frames: int) -> None:
        size = len(self.pending) - keep_frames * self.frame_bytes
        for start in range(0, size, BATCH_BYTES):
            _send(b"P", bytes(self.pending[start : min(start + BATCH_BYTES, size)]))
        del self.pending[:size]

    def _excess_frames(self) -> int:
        """Frames at the end that belong to the codec and not to the music."""
        if self.stream.codec_context.name == "vorbis":
            return self._beyond(self.length_frames)
        if self.container.format.name.startswith("mov"):
            by_durations = max(self.last_duration_gap_frames, self.end_discard_frames)
            return self._beyond(_itunes_length(self.container.metadata.get("iTunSMPB", ""))) or by_durations
        return self.end_discard_frames

    def _beyond(self, length_frames: int | None) -> int:
        excess = self.frames - length_frames if length_frames else 0
        return excess if 0 < excess <= TAIL_FRAMES else 0  # a length that is further off describes something else


def _skip_samples(frame: Any) -> tuple[int, int]:
    """Frames to drop at the start and at the end of this frame (AV_PKT_DATA_SKIP_SAMPLES: two little-endian uint32)."""
    for side_data in frame.side_data:
        if side_data.type.name == "SKIP_SAMPLES":
            start, end = struct.unpack_from("<II", bytes(side_data))
            return start, min(end, frame.samples)
    return 0, 0


def _itunes_length(comment: str) -> int:
    """Length from Apple's gapless comment: hexadecimal flags, delay, padding, length, …; 0 when there is none."""
    fields = comment.split()
    try:
        return int(fields[3], 16)
    except (IndexError, ValueError):
        return 0


def _container_is_cut() -> bool:
    """Whether a RIFF or FORM container is shorter than it says (libavformat silently takes what is there)."""
    head = os.pread(0, 8, 0)
    if len(head) < 8 or head[:4] not in (b"RIFF", b"FORM"):
        return False
    (size,) = struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:])
    return bool(0 < size < 0xFFFFFFF0 and os.fstat(0).st_size < size + 8)


def _send_json(kind: bytes, facts: dict[str, object]) -> None:
    _send(kind, json.dumps(facts).encode())


def _send(kind: bytes, payload: bytes) -> None:
    message = memoryview(struct.pack("<cI", kind, len(payload)) + payload)
    while message:
        message = message[os.write(1, message) :]


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the parent has heard enough
        os._exit(0)
