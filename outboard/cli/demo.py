"""The song that `--demo` masters."""

from __future__ import annotations

from pathlib import Path

DEMO_SEED = 1
DEMO_SECONDS = 30.0


def write_demo_song(folder: Path) -> Path:
    """Synthesises the demo song (the same bytes every time) into the folder and returns its path."""
    path = folder / "demo.wav"
    if not path.is_file():
        # Imported here: the signal libraries cost seconds that no other command should take to start.
        from outboard.audio.demo import synthesise
        from outboard.audio.files import FileSpec, encode

        folder.mkdir(parents=True, exist_ok=True)
        demo = synthesise(DEMO_SEED, DEMO_SECONDS)
        encode(path, [demo.song], demo.sample_rate_hertz, FileSpec("wav", "32f"))
    return path
