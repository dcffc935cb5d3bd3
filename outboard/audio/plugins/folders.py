"""Where VST3 bundles lie, and which file in a bundle is for this machine.

The folders are those of Steinberg's "VST 3 Locations / Format" for Linux. A bundle is a folder ``NAME.vst3`` with a
binary per kind of machine in ``Contents/MACHINE-linux/NAME.so``; old ones are a single file. What a binary is for
stands in its ELF header (System V ABI, chapter 4): class in byte 4, machine in bytes 18 and 19.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from outboard.audio.plugins.facts import FAILED, WRONG_MACHINE, PluginFailed

STANDARD_FOLDERS = (Path.home() / ".vst3", Path("/usr/lib/vst3"), Path("/usr/local/lib/vst3"))

_DEEPEST = 4
_ELF = b"\x7fELF"
_HEADER_BYTES = 20
_MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 62: "64-bit x86", 183: "64-bit ARM", 243: "RISC-V"}


def bundles(folders: Sequence[Path]) -> Iterator[Path]:
    """Every bundle below the folders, in their order and by name; a folder that is not there holds none."""
    for folder in folders:
        yield from _below(folder, _DEEPEST)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.lower().endswith(".vst3"):
            yield Path(entry.path)
        elif depth and entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), depth - 1)


def binary(bundle: Path) -> Path:
    """The file of a bundle that this machine can load.

    Raises:
        PluginFailed: PLUGIN_WRONG_MACHINE: it has none, or one for another kind of machine (32-bit, say);
            PLUGIN_FAILED: the file is no binary or cannot be read.
    """
    name = bundle.stem
    if bundle.is_dir():
        found = bundle / "Contents" / f"{platform.machine()}-linux" / f"{name}.so"
        if not found.is_file():
            there = sorted(path.name for path in (bundle / "Contents").glob("*") if any(path.glob("*.so")))
            others = f": it is for {', '.join(there)}" if there else ""
            raise PluginFailed(name, f"{name} has nothing for {platform.machine()}-linux{others}", WRONG_MACHINE)
    else:
        found = bundle
    wanted, given = _kind(Path("/proc/self/exe"), name), _kind(found, name)
    if wanted != given:
        raise PluginFailed(name, f"{name} is {_told(given)}, this machine runs {_told(wanted)}", WRONG_MACHINE)
    return found


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file: what was found out about it holds while these do."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(path: Path, name: str) -> tuple[int, int]:
    """Class and machine of an ELF file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise PluginFailed(name, f"{name} cannot be read: {error.strerror}", FAILED) from error
    if len(head) < _HEADER_BYTES or not head.startswith(_ELF):
        raise PluginFailed(name, f"{name} is no program of this system", WRONG_MACHINE)
    order = "little" if head[5] == 1 else "big"
    return head[4], int.from_bytes(head[18:20], order)  # type: ignore[arg-type]


def _told(kind: tuple[int, int]) -> str:
    bits = {1: "32-bit", 2: "64-bit"}.get(kind[0], "unknown")
    known = _MACHINES.get(kind[1], f"machine {kind[1]}")
    return known if known.startswith(bits) else f"{bits} ({known})"
