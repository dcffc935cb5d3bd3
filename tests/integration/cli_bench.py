"""What commands said, and a folder for them to run in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Outboard = Callable[..., Ended]


def work_folder(folder: Path) -> Path:
    """The folder, with a song and stems of a demo in it, and a letter."""
    demo = synthesise(21, 6.0)
    encode(folder / "song.wav", [demo.song], demo.sample_rate_hertz, FileSpec("wav", "24"))
    for name in ("vocals", "drums", "bass"):
        stem = demo.stems[name][:, : 2 * demo.sample_rate_hertz]
        encode(folder / f"{name} [dry].wav", [stem], demo.sample_rate_hertz, FileSpec("wav", "32f"))
    (folder / "letter.wav").write_text("This is a letter.\n" * 100)
    return folder
