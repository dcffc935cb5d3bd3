"""What the mastering commands understand: kinds of files to deliver, platforms, references.

A file to deliver is written ``[NAME=]FORMAT[:RATE][:DEPTH or KBPS]``: ``wav:48000:24``, ``flac:44.1k:16``, ``mp3:320``,
``club=wav:96k:32f``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from outboard import errors
from outboard.v1 import master_service_pb2

_DEPTHS = {"16": "BIT_DEPTH_16", "24": "BIT_DEPTH_24", "32f": "BIT_DEPTH_32F"}
_FORMATS = ("wav", "flac", "mp3")
_LOWEST_RATE_HERTZ = 8000
_DEFAULT_NAME = "master"
_REFERENCE_FIELD = re.compile(r"job\.references\[(\d+)\]")
_REFERENCE_NAME = re.compile(r"'reference-(\d+)'")


def parse_deliverables(texts: list[str]) -> list[master_service_pb2.DeliverableSpec]:
    """Files to deliver; those without a name are called ``master``, with what tells them apart where it must.

    Raises:
        InvalidInput: which text, and what it should look like.
    """
    specs = [_parsed(text) for text in texts]
    unnamed = Counter(spec.container for spec in specs if not spec.name)
    for spec in specs:
        if not spec.name:
            spec.name = _DEFAULT_NAME if unnamed[spec.container] == 1 else _told_apart(spec)
    files = Counter((spec.name, spec.container) for spec in specs)
    (name, container), count = files.most_common(1)[0]
    if count > 1:
        kind = master_service_pb2.Container.Name(container).removeprefix("CONTAINER_").lower()
        raise errors.InvalidInput(
            f"two deliverables are both {name}.{kind}: give them names, as in mine={kind}",
            field="deliver", reason="OPTIONS_CONFLICT",
        )  # fmt: skip
    return specs


def _parsed(text: str) -> master_service_pb2.DeliverableSpec:
    name, separator, kind = text.rpartition("=")
    if separator and not name:
        raise _wrong(text, "a name is missing before '='")
    container, *options = kind.lower().split(":")
    if container not in _FORMATS:
        raise _wrong(text, f"{container!r} is none of {', '.join(_FORMATS)}")
    spec = master_service_pb2.DeliverableSpec(
        name=name, container=master_service_pb2.Container.Value(f"CONTAINER_{container.upper()}")
    )
    for option in options:
        _apply(spec, container, option, text)
    return spec


def _apply(spec: master_service_pb2.DeliverableSpec, container: str, option: str, text: str) -> None:
    if container == "mp3" and option in ("32f", "16", "24"):
        raise _wrong(text, "mp3 has a bit rate (128 to 320 kbit/s) and no bit depth")
    if option in _DEPTHS:
        if spec.bit_depth:
            raise _wrong(text, "it has two bit depths")
        spec.bit_depth = master_service_pb2.BitDepth.Value(_DEPTHS[option])
        return
    try:
        number = float(option[:-1]) * 1000.0 if option.endswith("k") else float(option)
    except ValueError:
        raise _wrong(text, f"{option!r} is no rate, depth (16, 24, 32f) or bit rate") from None
    if (spec.sample_rate_hertz and number >= _LOWEST_RATE_HERTZ) or (spec.bitrate_kbps and number < _LOWEST_RATE_HERTZ):
        raise _wrong(text, f"{option!r} is the second of its kind")
    if number >= _LOWEST_RATE_HERTZ and number == round(number) and number < 1e6:
        spec.sample_rate_hertz = round(number)
    elif container == "mp3" and 0 < number < _LOWEST_RATE_HERTZ and number == round(number):
        spec.bitrate_kbps = round(number)
    else:
        raise _wrong(text, f"{option!r} is no sample rate or bit depth that {container} has")


def _told_apart(spec: master_service_pb2.DeliverableSpec) -> str:
    parts = [_DEFAULT_NAME, str(spec.sample_rate_hertz or 48_000)]
    if spec.container == master_service_pb2.CONTAINER_MP3:
        parts.append(str(spec.bitrate_kbps or 320))
    else:
        parts.append(master_service_pb2.BitDepth.Name(spec.bit_depth or master_service_pb2.BIT_DEPTH_24).lower()[10:])
    return "-".join(parts)


def _wrong(text: str, why: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"--deliver {text!r}: {why}; it looks like [NAME=]wav|flac|mp3[:RATE][:16|24|32f or KBPS]", field="deliver"
    )


def checked_platform(name: str) -> str:
    """A platform's name.

    Raises:
        InvalidInput: PRESET_UNKNOWN; the nearest is suggested.
    """
    from outboard.presets.platforms import platform

    if name:
        platform(name)
    return name


def chosen_references(song: Path, given: list[Path]) -> tuple[list[Path], str]:
    """The reference files, and a sentence where one was chosen: a folder stands for the song in it that sounds nearest.

    Raises:
        InvalidInput: REFERENCE_UNSUITABLE: a folder without a song that could serve.
    """
    chosen, told = [], []
    for path in given:
        if not path.is_dir():
            chosen.append(path)
            continue
        # Late: the signal libraries cost seconds that no other command should take to start.
        from outboard.audio.nearest_song import ranked_by_sound, songs_in

        ranked = ranked_by_sound(song, songs_in(path))
        if not ranked:
            raise errors.InvalidInput(
                f"no song in {path.name!r} can serve as a reference", field="reference", reason="REFERENCE_UNSUITABLE"
            )
        chosen.append(ranked[0].path)
        told.append(f"{ranked[0].path.name} sounds nearest of {len(ranked)} (distance {ranked[0].distance:.2f}).")
    return chosen, " ".join(told)


@contextmanager
def named_references(files: Sequence[Path]) -> Iterator[None]:
    """What a server says of references by their place is raised with their files' names: uploads have none."""

    def in_text(found: re.Match[str]) -> str:
        index = int(found[1]) - 1
        return repr(files[index].name) if 0 <= index < len(files) else found[0]

    def named(violation: errors.Violation) -> errors.Violation:
        place = _REFERENCE_FIELD.match(violation.field)
        text = _REFERENCE_NAME.sub(in_text, violation.description)
        if place and int(place[1]) < len(files):
            text = f"{files[int(place[1])].name!r}: {text}"
        return errors.Violation(violation.field, text)

    try:
        yield
    except errors.OutboardError as error:
        told = {violation.description: named(violation) for violation in reversed(error.violations)}
        message = told[error.message].description if error.message in told else error.message
        raise type(error)(
            _REFERENCE_NAME.sub(in_text, message),
            reason=error.reason,
            violations=[named(violation) for violation in error.violations],
            retry_after_seconds=error.retry_after_seconds,
            metadata=error.metadata,
        ) from error
