"""A file that is asked for: its kind, what is unset of it, and which kinds there are not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from outboard.audio.files.mp3 import BITRATES_KBPS
from outboard.errors import Violation

DITHERS = ("tpdf", "noise_shaped")
CONTAINERS = ("wav", "flac", "mp3")
_BIT_DEPTHS = {"wav": ("16", "24", "32f"), "flac": ("16", "24")}
_SAMPLE_RATES_HERTZ = (44100, 48000, 88200, 96000)
_MP3_RATES_HERTZ = (44100, 48000)
_MP3_KBPS = tuple(kbps for kbps in BITRATES_KBPS if kbps >= 128)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_DEFAULT_BIT_DEPTH, _DEFAULT_BITRATE_KBPS, _DEFAULT_DITHER = "24", 320, "tpdf"


@dataclass(frozen=True)
class DeliverableSpec:
    """A file to render: name without extension; `bit_depth` and `dither` for wav and flac, `bitrate_kbps` for mp3.

    None: not asked for, so that `resolved` may choose.
    """

    name: str = "master"
    container: str = "wav"
    sample_rate_hertz: int = 48000
    bit_depth: str | None = None
    bitrate_kbps: int | None = None
    dither: str | None = None

    @property
    def file_name(self) -> str:
        """Name with extension."""
        return f"{self.name}.{self.container}"

    @property
    def is_lossy(self) -> bool:
        """Whether decoding gives other samples than were encoded."""
        return self.container == "mp3"

    def resolved(self) -> DeliverableSpec:
        """With everything that the kind of file has: 24 bits and plain dither, or 320 kbit/s, where nothing is said."""
        if self.is_lossy:
            return replace(self, bitrate_kbps=self.bitrate_kbps or _DEFAULT_BITRATE_KBPS)
        depth = self.bit_depth or _DEFAULT_BIT_DEPTH
        return replace(self, bit_depth=depth, dither=None if depth == "32f" else self.dither or _DEFAULT_DITHER)


def deliverable_violations(deliverables: tuple[DeliverableSpec, ...]) -> list[Violation]:
    """What no file of its kind can have."""
    wrong = []
    for index, spec in enumerate(deliverables):
        path = f"deliverables[{index}]"
        if not _NAME.fullmatch(spec.name) or ".." in spec.name:
            wrong.append(Violation(f"{path}.name", "a name has letters, digits, '-', '_' and '.' only"))
        if spec.container not in CONTAINERS:
            wrong.append(Violation(f"{path}.container", f"{spec.container!r} is not one of {', '.join(CONTAINERS)}"))
        rates = _MP3_RATES_HERTZ if spec.is_lossy else _SAMPLE_RATES_HERTZ
        if spec.sample_rate_hertz not in rates:
            wrong.append(Violation(f"{path}.sample_rate_hertz", f"{spec.sample_rate_hertz} is not one of {rates}"))
        depths = _BIT_DEPTHS.get(spec.container)
        if depths is not None and spec.bit_depth is not None and spec.bit_depth not in depths:
            told = f"{spec.container} has no bit depth {spec.bit_depth!r}: {', '.join(depths)}"
            wrong.append(Violation(f"{path}.bit_depth", told))
        if spec.dither is not None and spec.dither not in DITHERS:
            wrong.append(Violation(f"{path}.dither", f"{spec.dither!r} is not one of {', '.join(DITHERS)}"))
        if spec.is_lossy and spec.bitrate_kbps is not None and spec.bitrate_kbps not in _MP3_KBPS:
            wrong.append(Violation(f"{path}.bitrate_kbps", f"{spec.bitrate_kbps} is not one of {_MP3_KBPS}"))
    return wrong


def deliverable_conflicts(deliverables: tuple[DeliverableSpec, ...]) -> list[Violation]:
    """What contradicts itself: options that a kind of file would ignore, and two files of one name."""
    wrong = []
    for index, spec in enumerate(deliverables):
        path = f"deliverables[{index}]"
        if spec.is_lossy and spec.bit_depth is not None:
            wrong.append(Violation(f"{path}.bit_depth", "mp3 has a bit rate and no bit depth"))
        if spec.is_lossy and spec.dither is not None:
            wrong.append(Violation(f"{path}.dither", "mp3 is not rounded to integers: it has no dither"))
        if spec.bit_depth == "32f" and spec.dither is not None:
            wrong.append(Violation(f"{path}.dither", "floats are not rounded to integers: they have no dither"))
        if not spec.is_lossy and spec.bitrate_kbps is not None:
            wrong.append(Violation(f"{path}.bitrate_kbps", f"{spec.container} has a bit depth and no bit rate"))
    (name, count), *_ = Counter(spec.file_name.lower() for spec in deliverables).most_common(1) or [("", 0)]
    if count > 1:
        wrong.append(Violation("deliverables", f"{count} deliverables have the same name {name!r}"))
    return wrong
