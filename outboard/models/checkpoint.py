"""Reads PyTorch checkpoints without PyTorch, and without running what is in them.

A checkpoint is a zip archive with a pickle (``data.pkl``) and the raw bytes of every storage (``data/0`` ...). A pickle
may name any function and call it; the unpickler here knows a dozen names, each of which stands for something harmless
of its own, and refuses every other. Sizes, offsets and strides come out of the pickle too, so they are checked against
the storage. Archives are stored uncompressed by PyTorch, and only such are read, so nothing can swell.
"""

from __future__ import annotations

import collections
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.errors import FailedPrecondition

_LARGEST_PICKLE_BYTES = 16 * 1024 * 1024
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member of a zip archive
_FRACTION = re.compile(r"-?\d{1,9}(/[1-9]\d{0,8})?")


# With slots: a pickle can write into the attributes of whatever it is handed.
@dataclass(frozen=True, slots=True)
class NamedClass:
    """Stands for a network's class, which is not imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Stands for a class of storages."""

    dtype: np.dtype[Any]


_STORAGES: Mapping[str, _Storage] = {
    "FloatStorage": _Storage(np.dtype("<f4")),
    "HalfStorage": _Storage(np.dtype("<f2")),
    "DoubleStorage": _Storage(np.dtype("<f8")),
    "LongStorage": _Storage(np.dtype("<i8")),
    "IntStorage": _Storage(np.dtype("<i4")),
    "BoolStorage": _Storage(np.dtype("?")),
}


@dataclass(frozen=True)
class Checkpoint:
    """A network as upstream packs it: class name, arguments, and float arrays by name."""

    class_name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    state: Mapping[str, NDArray[Any]]


class Unsafe(FailedPrecondition):
    """The pickle asks for something that no checkpoint needs."""

    default_reason = "MODEL_WEIGHTS_UNSAFE"


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a ``.th`` file of the Demucs family.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_TRUNCATED, MODEL_WEIGHTS_INVALID, MODEL_WEIGHTS_UNSAFE, or
            MODEL_WEIGHTS_OF_OTHER_MODEL.
    """
    return _package(path, _read(path))


def read_state(path: Path) -> Mapping[str, NDArray[Any]]:
    """Reads a checkpoint that is nothing but a network's arrays by name (``torch.save(model.state_dict(), path)``).

    Raises:
        FailedPrecondition: as :func:`read_checkpoint`.
    """
    return _arrays(path, _read(path))


def read_training_state(path: Path, prefixes: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    """Reads some arrays of what a training wrote: a dictionary whose ``state_dict`` holds a network's arrays by name.

    The file is mapped, so only what is looked at takes memory; the arrays cannot be written to.

    Args:
        path: of the checkpoint.
        prefixes: of the names that are wanted.

    Raises:
        FailedPrecondition: as :func:`read_checkpoint`.
    """
    package = _read(path, is_mapped=True)
    state = package.get("state_dict", package) if isinstance(package, dict) else package
    if not isinstance(state, dict):
        return _arrays(path, state)
    return _arrays(path, {name: value for name, value in state.items() if str(name).startswith(prefixes)})


def _arrays(path: Path, state: Any) -> Mapping[str, NDArray[Any]]:
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise FailedPrecondition(
            f"the checkpoint {path.name} holds more than arrays", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
        )
    return state


def _read(path: Path, *, is_mapped: bool = False) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpickled(archive, np.memmap(path, np.uint8, "r") if is_mapped else None)
    except zipfile.BadZipFile as error:
        raise FailedPrecondition(
            f"the checkpoint {path.name} ends too early, or is none", reason="MODEL_WEIGHTS_TRUNCATED"
        ) from error
    except FailedPrecondition:
        raise
    except Exception as error:
        # A pickle can fail in as many ways as there are operations in it.
        raise FailedPrecondition(
            f"the checkpoint {path.name} cannot be read: {type(error).__name__}", reason="MODEL_WEIGHTS_INVALID"
        ) from error


def _package(path: Path, package: Any) -> Checkpoint:
    klass = package.get("klass") if isinstance(package, dict) else None
    state = package.get("state") if isinstance(package, dict) else None
    if not isinstance(klass, NamedClass) or not isinstance(state, dict):
        raise FailedPrecondition(
            f"the checkpoint {path.name} holds no packed network", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
        )
    if not all(isinstance(name, str) and isinstance(value, np.ndarray) for name, value in state.items()):
        raise FailedPrecondition(
            f"the checkpoint {path.name} holds more than arrays (it may be quantised)",
            reason="MODEL_WEIGHTS_OF_OTHER_MODEL",
        )
    return Checkpoint(klass.name, tuple(package.get("args", ())), dict(package.get("kwargs", {})), dict(state))


def _unpickled(archive: zipfile.ZipFile, mapped: NDArray[np.uint8] | None) -> Any:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise FailedPrecondition("the archive holds no data.pkl: no checkpoint", reason="MODEL_WEIGHTS_INVALID")
    if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
        raise Unsafe("the checkpoint is compressed, which PyTorch's are not")
    if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE_BYTES:
        raise Unsafe("the checkpoint's pickle is larger than any network's")
    return _Unpickler(archive, names[0], mapped).load()


class _Unpickler(pickle.Unpickler):
    """Knows the names that a checkpoint needs, and no other."""

    def __init__(self, archive: zipfile.ZipFile, name: str, mapped: NDArray[np.uint8] | None) -> None:
        super().__init__(io.BytesIO(archive.read(name)))
        self._archive = archive
        self._mapped = mapped
        self._folder = name.removesuffix("data.pkl") + "data/"

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "torch" and global_name in _STORAGES:
            return _STORAGES[global_name]
        known = _KNOWN.get(f"{module_name}.{global_name}")
        if known is None:
            raise Unsafe(f"the checkpoint asks for {module_name}.{global_name}, which no network needs; it was not run")
        return known

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage) or not re.fullmatch(r"\d{1,9}", key):
            raise Unsafe("the checkpoint asks for something that is no storage")
        content = self._content(self._folder + key)
        if len(content) != count * storage.dtype.itemsize:
            raise FailedPrecondition("a storage has another size than it says", reason="MODEL_WEIGHTS_INVALID")
        return np.frombuffer(content, storage.dtype)

    def _content(self, name: str) -> bytes | NDArray[np.uint8]:
        if self._mapped is None:
            return self._archive.read(name)
        # The archive opens the member to see that its own header agrees; uncompressed, its bytes lie behind that.
        item = self._archive.getinfo(name)
        with self._archive.open(item):
            header = self._mapped[item.header_offset : item.header_offset + _LOCAL_HEADER.size].tobytes()
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = item.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        return self._mapped[start : start + item.file_size]


def _tensor(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """``torch._utils._rebuild_tensor_v2``, inside the storage's bounds."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or offset < 0 or min((*size, *stride, 0)) < 0:
        raise Unsafe("a tensor of the checkpoint has an impossible shape")
    elements = int(np.prod(size, dtype=object)) if size else 1
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements > storage.size or (elements and last >= storage.size):
        raise Unsafe("a tensor of the checkpoint reaches beyond its storage")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], size, [step * storage.itemsize for step in stride], writeable=False
    )
    # Not ascontiguousarray, which gives a scalar an axis. What is mapped stays where it is.
    return view if view.flags.c_contiguous and isinstance(storage.base, np.memmap) else view.copy(order="C")


def _parameter(data: NDArray[Any], *_: Any) -> NDArray[Any]:
    return data


def _fraction(*parts: Any) -> Fraction:
    # "1e999999999" is a fraction too, and takes all memory there is.
    if len(parts) == 1 and isinstance(parts[0], str) and _FRACTION.fullmatch(parts[0]):
        return Fraction(parts[0])
    if parts and all(isinstance(part, int) and abs(part) < 10**9 for part in parts):
        return Fraction(*parts)
    raise Unsafe("the checkpoint holds a number that is none")


_KNOWN: Mapping[str, Callable[..., Any] | NamedClass] = {
    "collections.OrderedDict": collections.OrderedDict,
    "fractions.Fraction": _fraction,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"demucs.{name}": NamedClass(f"demucs.{name}") for name in ("htdemucs.HTDemucs", "hdemucs.HDemucs")},
}
