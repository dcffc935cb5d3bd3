"""Runtimes that can compute a core, each behind the same call: OpenVINO, ONNX Runtime, torch.

All of them take one window at a time on all cores (see :mod:`outboard.models.local`). Where a runtime would bind its
threads to cores, or have them spin while they wait, it is told not to: the other services of the mesh work there too.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.errors import FailedPrecondition
from outboard.models.devices import threads
from outboard.models.htdemucs.exports import exported_core
from outboard.models.htdemucs.variants import Variant
from outboard.models.registry import find, install_hint
from outboard.models.weights import WeightsFolder

OPENVINO, ONNXRUNTIME, TORCH = "openvino", "onnxruntime", "torch"
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    OPENVINO: ("openvino", "onnx", "onnxscript"),
    ONNXRUNTIME: ("onnxruntime", "onnx", "onnxscript"),
    TORCH: (),
}
"""What each backend takes beside the packages of the models themselves; the preferred first."""

Branches = tuple[NDArray[np.float32], NDArray[np.float32]]
Core = Callable[[NDArray[np.float32], NDArray[np.float32]], Branches]
"""Mix and spectrogram, both of one window, to the spectrogram and the waveform branch."""


@dataclass(frozen=True)
class Arithmetic:
    """What computes, where, and how exactly; for reports and for the names of results."""

    backend: str
    device: str
    precision: str

    @property
    def takes_export(self) -> bool:
        """Whether it computes an exported network, and not the weights themselves."""
        return self.backend != TORCH


def installed() -> tuple[str, ...]:
    """The backends that can be imported here, the preferred first."""
    return tuple(
        name for name, packages in _PACKAGES.items() if all(importlib.util.find_spec(each) for each in packages)
    )


def computes_bfloat16() -> bool:
    """Whether OpenVINO is here and the processor computes in bfloat16 itself."""
    return OPENVINO in installed() and "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def load_core(variant: Variant, how: Arithmetic, root: Path | None = None) -> tuple[Core, int]:
    """A network, ready to compute, and the frames of its windows.

    Args:
        variant: which.
        how: by what.
        root: folder with one folder per model; that of the settings unless given.

    Raises:
        FailedPrecondition: as in :func:`outboard.models.htdemucs.exports.exported_core`.
    """
    try:
        return _LOADERS[how.backend](variant, how, root)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(install_hint((error.name or how.backend,)), reason="ENGINE_UNAVAILABLE") from error


@functools.cache
def _openvino() -> Any:
    import openvino

    return openvino.Core()


def _openvino_core(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if how.precision == "bfloat16" else "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads(),
        # A thread that is bound to a core waits for it while the other services of the mesh leave another one idle.
        "ENABLE_CPU_PINNING": False,
    }
    network = _openvino().compile_model(exported_core(variant, root), how.device.upper(), options)
    request = network.create_infer_request()

    def compute(mix: NDArray[np.float32], spectrogram: NDArray[np.float32]) -> Branches:
        answer = request.infer({"mix": mix, "spectrogram": spectrogram}, share_inputs=True, share_outputs=True)
        # Copied: the next window is computed into the same memory while this one is still being transformed. (Memory of
        # our own can be shared with the request too, but it goes on pointing there when that is long gone.)
        return answer["spectrogram_branch"].copy(), answer["waveform_branch"].copy()

    return compute, network.input("mix").shape[-1]


def _onnxruntime_core(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
    # From 1.29 on it reports its use to its makers unless this is set before it is loaded; the lock takes an older one.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(exported_core(variant, root)), options, providers=["CPUExecutionProvider"]
    )
    outputs = ["spectrogram_branch", "waveform_branch"]

    def compute(mix: NDArray[np.float32], spectrogram: NDArray[np.float32]) -> Branches:
        spectrogram_branch, waveform_branch = session.run(outputs, {"mix": mix, "spectrogram": spectrogram})
        return spectrogram_branch, waveform_branch

    return compute, session.get_inputs()[0].shape[-1]


def _torch_core(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
    import torch

    from outboard.models.htdemucs import network

    if how.device != "cpu":
        network.keep_positions()
    weights = WeightsFolder(find(variant.model), root).require(f"{variant.signature}.safetensors")
    core = network.Core(network.load(weights, variant.sources), variant.kept).to(how.device)

    def compute(mix: NDArray[np.float32], spectrogram: NDArray[np.float32]) -> Branches:
        tf32 = how.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        half = torch.autocast(how.device, torch.float16, enabled=how.precision == "float16")
        with torch.inference_mode(), half:
            a, b = core(torch.from_numpy(mix).to(how.device), torch.from_numpy(spectrogram).to(how.device))
        return a.float().cpu().numpy(), b.float().cpu().numpy()

    return compute, network.segment_frames(core.network)


_LOADERS: Mapping[str, Callable[[Variant, Arithmetic, Path | None], tuple[Core, int]]] = {
    OPENVINO: _openvino_core,
    ONNXRUNTIME: _onnxruntime_core,
    TORCH: _torch_core,
}
