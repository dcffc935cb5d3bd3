"""The models that Outboard knows by name, and what of them lies in the folder that ``OUTBOARD_MODELS`` names.

A published weights file of the Demucs family carries the first eight hexadecimal digits of its SHA-256 in its name
(``955717e8-8726e21a.th``: signature and digest), which is what a file is checked against here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """Where weights lie."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_", frozen=True)

    models: Path = Field(default=Path.home() / ".local" / "share" / "outboard" / "models")
    """Folder with one folder per model."""


@dataclass(frozen=True)
class Model:
    """A published model: the stage it serves, its licence, and its files (signature, or plain name)."""

    name: str
    stage: str
    licence: str
    files: tuple[str, ...]


MODELS = (
    Model("htdemucs", "separate", "MIT", ("955717e8",)),
    Model("htdemucs_ft", "separate", "MIT", ("f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d")),
    Model("htdemucs_6s", "separate", "MIT", ("5c90dfd2",)),
    Model("deepfilternet3", "restore", "MIT or Apache-2.0", ("config.ini", "checkpoints/model_120.ckpt.best")),
    Model("audiosr", "restore", "MIT", ("pytorch_model.bin",)),
)
"""Sources: facebookresearch/demucs (remote/files.txt), Rikorose/DeepFilterNet, haoheliu/audiosr_basic."""


@dataclass(frozen=True)
class Presence:
    """What is here of one model: ``state`` is "absent", "incomplete", "present" or "damaged"."""

    name: str
    stage: str
    licence: str
    file_count: int
    state: str


def _find(folder: Path, file: str) -> Path | None:
    """The file itself, or a Demucs file by its signature."""
    if (folder / file).is_file():
        return folder / file
    return next(iter(sorted(folder.glob(f"{file}-????????.th"))), None) if folder.is_dir() else None


def _intact(path: Path) -> bool:
    """Whether the digest in a published name is the file's; names without one say nothing."""
    _, dash, digits = path.stem.partition("-")
    if not dash or path.suffix != ".th":
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits)


def _state(model: Model, folder: Path) -> str:
    found = [path for file in model.files if (path := _find(folder, file))]
    if not found:
        return "absent"
    if len(found) < len(model.files):
        return "incomplete"
    return "present" if all(map(_intact, found)) else "damaged"


def inventory(directory: Path | None = None) -> list[Presence]:
    """Every model and what of it lies in the folder (``OUTBOARD_MODELS`` unless given)."""
    root = directory or ModelSettings().models
    return [Presence(m.name, m.stage, m.licence, len(m.files), _state(m, root / m.name)) for m in MODELS]
