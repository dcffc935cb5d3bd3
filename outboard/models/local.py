"""Inference in this process: every network loaded once, shared by all jobs, computed one batch after the other.

All cores work on one window at a time, which is the fastest way to the first stems; batches of other jobs wait in one
queue, so there are never more computing threads than cores. The transforms of a window run beside the network of the
one before it.

Which arithmetic, by the speed that was asked for (figures: docs/benchmarks.md):

=========  ====================================================  ====================
speed      on a CPU                                              to upstream, SNR
=========  ====================================================  ====================
exact      torch, float32                                        at least 100 dB
balanced   OpenVINO, float32                                     at least 60 dB
fast       OpenVINO, bfloat16 where the processor computes it    at least 35 dB
=========  ====================================================  ====================

With a CUDA device torch computes there at every speed: float32 when exact, TF32 when balanced, float16 when fast.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.errors import FailedPrecondition, Internal, InvalidInput, OutboardError
from outboard.models.htdemucs import transform
from outboard.models.htdemucs.exports import exported_core
from outboard.models.htdemucs.variants import VARIANTS, Variant
from outboard.models.inference import Arrays
from outboard.models.registry import find, install_hint
from outboard.models.weights import WeightsFolder

SPEEDS = ("exact", "balanced", "fast")
_TRANSFORM_THREADS = 2

Branches = tuple[NDArray[np.float32], NDArray[np.float32]]
Core = Callable[[NDArray[np.float32], NDArray[np.float32]], Branches]
"""Mix and spectrogram to the spectrogram and the waveform branch."""


@dataclass(frozen=True)
class Arithmetic:
    """What computes, where, and how exactly; for reports and for the names of results."""

    backend: str
    device: str
    precision: str


@functools.cache
def arithmetic(speed: str) -> Arithmetic:
    """What this machine uses for a speed."""
    if has_cuda():
        return Arithmetic("torch", "cuda", {"exact": "float32", "balanced": "tf32", "fast": "float16"}[speed])
    if speed == "exact":
        return Arithmetic("torch", "cpu", "float32")
    return Arithmetic("openvino", "cpu", "bfloat16" if speed == "fast" and _computes_bfloat16() else "float32")


def runs_exports(speed: str) -> bool:
    """Whether this machine computes at that speed with exported networks."""
    return arithmetic(speed).backend == "openvino"


def has_cuda() -> bool:
    """Whether torch is here and sees a CUDA device."""
    # Looked at first, because loading torch takes seconds and hundreds of megabytes.
    if not Path("/proc/driver/nvidia/version").exists() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _computes_bfloat16() -> bool:
    return "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class LocalInference:
    """:class:`~outboard.models.inference.Inference` by this process, for one speed.

    Args:
        speed: "exact", "balanced" or "fast".
        root: folder with one folder per model; that of the settings unless given.
    """

    def __init__(self, speed: str = "balanced", root: Path | None = None) -> None:
        if speed not in SPEEDS:
            raise InvalidInput(f"speed must be one of {', '.join(SPEEDS)}, not {speed!r}")
        self.arithmetic = arithmetic(speed)
        self._root = root
        self._cores: dict[str, tuple[Core, int]] = {}
        self._loading = threading.Lock()
        self._transforms = ThreadPoolExecutor(_TRANSFORM_THREADS, "outboard-transform")

    def infer(self, model: str, inputs: Arrays) -> Future[Arrays]:
        """As :meth:`outboard.models.inference.Inference.infer`."""
        future: Future[Arrays] = Future()
        if model not in VARIANTS:
            future.set_exception(InvalidInput(f"there is no model {model!r}", reason="MODEL_INVALID"))
        else:
            self._transforms.submit(self._prepare, VARIANTS[model], inputs, future)
        return future

    def segment_frames(self, model: str) -> int:
        """Frames of one window; loads the model."""
        return self._core(VARIANTS[model])[1]

    def close(self) -> None:
        """As :meth:`outboard.models.inference.Inference.close`."""
        self._transforms.shutdown(cancel_futures=True)
        self._cores.clear()

    def _prepare(self, variant: Variant, inputs: Arrays, future: Future[Arrays]) -> None:
        if future.cancelled():
            return
        with _failing(future):
            mix = _checked(inputs)
            _computing().submit(self._compute, variant, mix, transform.spectrogram(mix), future)

    def _compute(
        self, variant: Variant, mix: NDArray[np.float32], spectrogram: NDArray[np.float32], future: Future[Arrays]
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        with _failing(future):
            core, frames = self._core(variant)
            if mix.shape[-1] != frames:
                raise InvalidInput(f"{variant.name} takes {frames} frames, not {mix.shape[-1]}", reason="MODEL_INVALID")
            # Exports have a batch of one: what runs them plans its memory once.
            answers = [core(mix[i : i + 1], spectrogram[i : i + 1]) for i in range(len(mix))]
            self._transforms.submit(self._finish, answers, future)

    def _finish(self, answers: list[Branches], future: Future[Arrays]) -> None:
        with _failing(future):
            stems = [transform.stems(*branches) for branches in answers]
            future.set_result({"stems": stems[0] if len(stems) == 1 else np.concatenate(stems)})

    def _core(self, variant: Variant) -> tuple[Core, int]:
        with self._loading:
            if variant.name not in self._cores:
                load = _torch_core if self.arithmetic.backend == "torch" else _openvino_core
                self._cores[variant.name] = load(variant, self.arithmetic, self._root)
            return self._cores[variant.name]


class _failing:  # noqa: N801 - used as a function
    """Hands what goes wrong inside to whoever waits for the future."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        if not self._future.cancelled():
            known = isinstance(error, OutboardError)
            self._future.set_exception(error if known else Internal(f"a model failed: {type(error).__name__}: {error}"))
        return True


def _checked(inputs: Arrays) -> NDArray[np.float32]:
    mix = inputs.get("mix")
    if (
        mix is None
        or mix.ndim != 3
        or mix.shape[0] < 1
        or mix.shape[1] != transform.CHANNELS
        or mix.dtype != np.float32
    ):
        shape = None if mix is None else (mix.shape, str(mix.dtype))
        raise InvalidInput(f"the input mix must be float32 [B, 2, N], not {shape}", reason="MODEL_INVALID")
    return mix


@functools.cache
def _computing() -> ThreadPoolExecutor:
    """The one thread of this process that starts networks, whatever speed and however many jobs."""
    return ThreadPoolExecutor(1, "outboard-model")


@functools.cache
def _openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise FailedPrecondition(install_hint(("openvino",)), reason="ENGINE_UNAVAILABLE") from error
    return openvino.Core()


def _openvino_core(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
    core = _openvino()
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if how.precision == "bfloat16" else "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
        # A thread that is bound to a core waits for it while the other services of the mesh leave another one idle.
        "ENABLE_CPU_PINNING": False,
    }
    network = core.compile_model(exported_core(variant, root), how.device.upper(), options)
    request = network.create_infer_request()

    def compute(mix: NDArray[np.float32], spectrogram: NDArray[np.float32]) -> Branches:
        answer = request.infer({"mix": mix, "spectrogram": spectrogram}, share_inputs=True, share_outputs=True)
        # Copied: the next window is computed into the same memory while this one is still being transformed. (Memory of
        # our own can be shared with the request too, but it goes on pointing there when that is long gone.)
        return answer["spectrogram_branch"].copy(), answer["waveform_branch"].copy()

    return compute, network.input("mix").shape[-1]


def _torch_core(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
    try:
        import torch

        from outboard.models.htdemucs import network
    except ModuleNotFoundError as error:
        raise FailedPrecondition(install_hint((error.name or "torch",)), reason="ENGINE_UNAVAILABLE") from error
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
