"""Single files of weights: their digests, whether they are whole, and what is made of a published one."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from outboard.errors import FailedPrecondition
from outboard.models.checkpoint import read_checkpoint, read_training_state

# As the format's own library has it.
_LONGEST_HEADER_BYTES = 100_000_000
NETWORK_CLASS = "demucs.htdemucs.HTDemucs"


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file; computed once for as long as size and time of change stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size_bytes: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_complete(path: Path) -> None:
    """Holds a safetensors file to the length that its header says; other files say nothing.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_TRUNCATED, MODEL_WEIGHTS_INVALID.
    """
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LONGEST_HEADER_BYTES:
                raise ValueError("no header is so long")
            header = json.loads(file.read(length)) if length < size else None
        end = (
            max(item["data_offsets"][1] for name, item in header.items() if name != "__metadata__") if header else size
        )
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"the weights file {path.name} is no safetensors file", reason="MODEL_WEIGHTS_INVALID"
        ) from error
    if header is None or 8 + length + end > size:
        raise FailedPrecondition(f"the weights file {path.name} ends too early", reason="MODEL_WEIGHTS_TRUNCATED")


def convert(published: Path, target: Path) -> None:
    """Makes a safetensors file, as ``demucs.hf.load_safetensors_model`` reads it too, of a published checkpoint.

    Raises:
        FailedPrecondition: as in :func:`~outboard.models.checkpoint.read_checkpoint`.
    """
    from safetensors.numpy import save_file

    checkpoint = read_checkpoint(published)
    if checkpoint.class_name != NETWORK_CLASS:
        raise FailedPrecondition(
            f"the checkpoint {published.name} holds a {checkpoint.class_name}, not a {NETWORK_CLASS}",
            reason="MODEL_WEIGHTS_OF_OTHER_MODEL",
        )
    metadata = {
        "klass": checkpoint.class_name,
        "args": _to_json(list(checkpoint.arguments)),
        "kwargs": _to_json(dict(checkpoint.keywords)),
    }
    with replacing(target) as path:
        save_file(dict(checkpoint.state), path, metadata)


def convert_training(published: Path, target: Path, prefixes: tuple[str, ...]) -> None:
    """Makes a safetensors file of some arrays of what a training wrote, one after the other.

    Args:
        published: a checkpoint of some gigabytes.
        target: where the file is to be.
        prefixes: of the arrays' names, all of which must be there.

    Raises:
        FailedPrecondition: as in :func:`~outboard.models.checkpoint.read_training_state`.
    """
    state = read_training_state(published, prefixes)
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in state)]
    if missing:
        raise FailedPrecondition(
            f"the checkpoint {published.name} holds nothing of {missing[0]}", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
        )
    kinds = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<f8"): "F64", np.dtype("<i8"): "I64"}
    header: dict[str, Any] = {}
    end = 0
    for name, array in state.items():
        if array.dtype not in kinds:
            raise FailedPrecondition(
                f"the checkpoint {published.name} holds {name} as {array.dtype}", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
            )
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
    # The format: a length, a header in JSON filled up to eight bytes, the arrays. Its own library wants all in memory.
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with replacing(target) as path, path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for array in state.values():
            file.write(array.data if array.ndim else array.tobytes())


def extract(archive: Path, member: str, target: Path) -> None:
    """Takes one file out of a zip archive.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_INVALID.
    """
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, replacing(target) as path:
            _write(source, path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FailedPrecondition(
            f"the archive {archive.name} does not hold {member}", reason="MODEL_WEIGHTS_INVALID"
        ) from error


def _write(source: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(source, file)


def _to_json(value: Any) -> str:
    def encoded(item: Any) -> Any:
        if isinstance(item, Fraction):
            return {"_type": "fraction", "numerator": item.numerator, "denominator": item.denominator}
        raise FailedPrecondition(
            f"a {type(item).__name__} has no place in a network's arguments", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
        )

    return json.dumps(value, default=encoded)


class replacing:  # noqa: N801 - used as a function
    """A path to write to, which takes the target's place when all is written."""

    def __init__(self, target: Path) -> None:
        self._target = target
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(descriptor)
        self._path = Path(name)

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._path.chmod(0o644)
            self._path.replace(self._target)
        else:
            self._path.unlink(missing_ok=True)
