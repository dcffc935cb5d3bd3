"""AudioSR in this process, on a CUDA device: every network loaded once, windows of all jobs in one queue.

On a CPU the full networks take minutes for a window, so they are not offered there (:func:`problem`).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from outboard.errors import Internal, InvalidInput, OutboardError
from outboard.models.audiosr.door import CONTROLS, NAMES, WEIGHTS, WINDOW_FRAMES
from outboard.models.devices import has_cuda
from outboard.models.inference import Arrays
from outboard.models.registry import find
from outboard.models.weights import WeightsFolder

PRECISION = "fp16"
NO_DEVICE = (
    "needs a CUDA device, or a model server that has one (OUTBOARD_TRITON_ADDRESS): on a CPU ten seconds take minutes"
)


def problem() -> str:
    """Why this process cannot compute; empty where it can."""
    return "" if has_cuda() else NO_DEVICE


class LocalSuperResolution:
    """:class:`~outboard.models.inference.Inference` by this process.

    Args:
        device: of torch.
        precision: as in :class:`outboard.models.audiosr.windows.Windows`.
        root: folder with one folder per model; that of the settings unless given.
    """

    def __init__(self, device: str = "cuda", precision: str = PRECISION, root: Path | None = None) -> None:
        self._device = device
        self._precision = precision
        self._root = root
        self._computes: dict[str, Callable[[Arrays], Arrays]] = {}
        self._loading = threading.Lock()
        self._queue = ThreadPoolExecutor(1, "outboard-audiosr")

    def infer(self, model: str, inputs: Arrays) -> Future[Arrays]:
        """As :meth:`outboard.models.inference.Inference.infer`."""
        return self._queue.submit(self._compute, model, inputs)

    def close(self) -> None:
        """As :meth:`outboard.models.inference.Inference.close`."""
        self._queue.shutdown(cancel_futures=True)
        self._computes.clear()

    def _compute(self, model: str, inputs: Arrays) -> Arrays:
        if model not in NAMES:
            raise InvalidInput(f"there is no model {model!r}", reason="MODEL_INVALID")
        _check(inputs)
        try:
            with self._loading:
                if model not in self._computes:
                    self._computes[model] = _loaded(model, self._device, self._precision, self._root)
            return self._computes[model](inputs)
        except OutboardError:
            raise
        except Exception as error:
            raise Internal(f"{model} failed: {type(error).__name__}: {error}", reason="MODEL_FAILED") from error


def _loaded(model: str, device: str, precision: str, root: Path | None) -> Callable[[Arrays], Arrays]:
    # Weights first: they are missed far more often than packages, and loading torch takes seconds.
    path = WeightsFolder(find(model), root).require(WEIGHTS)
    import torch

    from outboard.models.audiosr.network import load
    from outboard.models.audiosr.windows import Windows

    windows = Windows(load(path, device), precision)  # type: ignore[arg-type]

    def compute(inputs: Arrays) -> Arrays:
        audio = windows(torch.from_numpy(np.ascontiguousarray(inputs["window"])), inputs["controls"])
        return {"audio": audio.numpy()}

    return compute


def _check(inputs: Arrays) -> None:
    shapes = {name: (str(array.dtype), array.shape[1:]) for name, array in inputs.items()}
    expected = {"window": ("float32", (WINDOW_FRAMES,)), "controls": ("float32", (CONTROLS,))}
    if shapes != expected or len(inputs["window"]) != len(inputs["controls"]):
        raise InvalidInput(f"audiosr takes {expected} in equal batches, not {shapes}", reason="MODEL_INVALID")


@functools.cache
def shared() -> LocalSuperResolution:
    """The one of this process."""
    return LocalSuperResolution()
