"""Real VST3 plugins for tests: Debian's zam-plugins, and bundles that are broken on purpose."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ZAM_FOLDER = Path("/usr/lib/vst3")
_SHIPPED = ("ZamCompX2", "ZaMaximX2", "ZamEQ2", "ZamVerb")


def zam_folder() -> Path:
    """The folder of the real plugins; the test is skipped where they are not installed."""
    if not all((ZAM_FOLDER / f"{name}.vst3").is_dir() for name in _SHIPPED):
        pytest.skip("no real plugins: apt-get install zam-plugins")
    return ZAM_FOLDER


def copy_bundle(name: str, folder: Path, new_name: str = "") -> Path:
    """A real bundle in another folder, under another name if one is given; its binary's path is returned."""
    target = folder / f"{new_name or name}.vst3"
    shutil.copytree(zam_folder() / f"{name}.vst3", target)
    binary = next(target.rglob("*.so"))
    return binary.rename(binary.with_name(f"{new_name or name}.so"))


def old_bundle(folder: Path, name: str = "Old") -> Path:
    """A bundle whose binary says that it is for 32-bit machines."""
    binary = copy_bundle("ZamCompX2", folder, name)
    with binary.open("r+b") as file:
        file.seek(4)
        file.write(b"\x01")  # ELFCLASS32
        file.seek(18)
        file.write((3).to_bytes(2, "little"))  # EM_386
    return binary


def crashing_bundle(folder: Path, name: str = "Crasher") -> Path:
    """A bundle that ends its process as it is loaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a crashing plugin with")
    binary = folder / f"{name}.vst3" / "Contents" / f"{platform.machine()}-linux" / f"{name}.so"
    binary.parent.mkdir(parents=True)
    source = "int ModuleEntry(void *p) { *(volatile int *)0 = 1; return 1; } void *GetPluginFactory(void) { return 0; }"
    command = [compiler, "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", os.fspath(binary)]
    subprocess.run(command, input=source.encode(), check=True)
    return binary
