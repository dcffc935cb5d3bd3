"""Checkpoints are read without PyTorch, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demucs.htdemucs import HTDemucs

from outboard.errors import FailedPrecondition
from outboard.models.checkpoint import read_checkpoint


def package(**changes: Any) -> dict[str, Any]:
    """What upstream saves."""
    state = {"a.weight": torch.arange(6.0).reshape(2, 3).half(), "a.bias": torch.ones(3)[1:], "n": torch.tensor(7)}
    sources = ["drums", "bass", "other", "vocals"]
    whole = {
        "klass": HTDemucs,
        "args": (sources,),
        "kwargs": {"segment": Fraction(39, 5), "channels": 48},
        "state": state,
        "training_args": {"epochs": 3, "nested": {"list": [1, 2.5, None, True, "x"]}},
    }
    return {**whole, **changes}


def test_what_torch_wrote_is_read(tmp_path: Path) -> None:
    """Class name, arguments and every tensor, views and half precision among them."""
    path = tmp_path / "a.th"
    torch.save(package(), path)
    read = read_checkpoint(path)
    assert read.class_name == "demucs.htdemucs.HTDemucs"
    assert read.arguments == (["drums", "bass", "other", "vocals"],)
    assert read.keywords == {"segment": Fraction(39, 5), "channels": 48}
    assert {name: (value.dtype.name, value.tolist()) for name, value in read.state.items()} == {
        "a.weight": ("float16", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        "a.bias": ("float32", [1.0, 1.0]),
        "n": ("int64", 7),
    }


def test_a_tensor_that_is_not_contiguous_keeps_its_values(tmp_path: Path) -> None:
    """Strides are honoured."""
    tensor = torch.arange(12.0).reshape(3, 4).t()
    torch.save(package(state={"t": tensor}), tmp_path / "a.th")
    assert np.array_equal(read_checkpoint(tmp_path / "a.th").state["t"], tensor.numpy())


class _Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "hostile",
    [
        _Calls(os.system, "touch {marker}"),
        _Calls(eval, "open('{marker}', 'w')"),
        _Calls(exec, "open('{marker}', 'w')"),
        _Calls(pickle.loads, b"cos\nsystem\n(S'touch {marker}'\ntR."),
        _Calls(torch.load, "{marker}"),
        _Calls(Fraction, "1e999999999"),
    ],
    ids=["os.system", "eval", "exec", "pickle.loads", "torch.load", "huge number"],
)
def test_a_hostile_pickle_is_an_error_and_is_not_run(tmp_path: Path, hostile: _Calls) -> None:
    """Whatever it calls: MODEL_WEIGHTS_UNSAFE, and the call has not happened."""
    marker = tmp_path / "ran"
    function, arguments = hostile.call
    filled = [
        item.replace("{marker}", str(marker)) if isinstance(item, str) else item.replace(b"{marker}", bytes(marker))
        for item in arguments
    ]
    torch.save(package(training_args=_Calls(function, *filled)), tmp_path / "a.th")
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(tmp_path / "a.th")
    assert error.value.reason == "MODEL_WEIGHTS_UNSAFE", error.value
    assert not marker.exists()


def write_pickle(path: Path, content: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", storage)


class _Tensor:
    """Pickles as a tensor with any shape."""

    def __init__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.shape = offset, size, stride

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (_Storage(), *self.shape, False, {})


class _Storage:
    """Stands for a storage of four floats."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(item, _Storage) else None


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (1,), (1,)), (0, (1 << 40,), (0,)), (0, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_cannot_reach_beyond_its_storage(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    """Sizes, strides and offsets come out of the pickle and are not believed."""
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(package(state={"t": _Tensor(offset, size, stride)}))
    write_pickle(tmp_path / "a.th", stream.getvalue(), struct.pack("<4f", 1, 2, 3, 4))
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(tmp_path / "a.th")
    assert error.value.reason == "MODEL_WEIGHTS_UNSAFE", error.value


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    """PyTorch stores; what is compressed may swell without bound."""
    write_pickle(tmp_path / "a.th", pickle.dumps(b"\0" * 1_000_000), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(tmp_path / "a.th")
    assert error.value.reason == "MODEL_WEIGHTS_UNSAFE"


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_truncated_checkpoint_says_so(tmp_path: Path, cut: int) -> None:
    """MODEL_WEIGHTS_TRUNCATED wherever it ends."""
    path = tmp_path / "a.th"
    torch.save(package(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(path)
    assert error.value.reason == "MODEL_WEIGHTS_TRUNCATED"


def test_garbage_in_the_pickle_is_invalid(tmp_path: Path) -> None:
    """A whole archive whose pickle makes no sense."""
    write_pickle(tmp_path / "a.th", b"\x80\x02garbage")
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(tmp_path / "a.th")
    assert error.value.reason == "MODEL_WEIGHTS_INVALID"


@pytest.mark.parametrize("content", [[1, 2], {"klass": "no class", "state": {}}, {"state": {}}])
def test_another_package_is_of_another_model(tmp_path: Path, content: Any) -> None:
    """A checkpoint that packs no network."""
    torch.save(content, tmp_path / "a.th")
    with pytest.raises(FailedPrecondition) as error:
        read_checkpoint(tmp_path / "a.th")
    assert error.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"
