"""Inference in this process: every network loaded once, shared by all jobs, computed one batch after the other.

All cores work on one window at a time, which is the fastest way to the first stems; batches of other jobs wait in one
queue, so there are never more computing threads than cores. The transforms of a window run beside the network of the
one before it.

What computes a network, and how exactly, is chosen in :mod:`outboard.models.htdemucs.choice`.
"""

from __future__ import annotations

import functools
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.errors import Internal, InvalidInput, OutboardError
from outboard.models.htdemucs import transform
from outboard.models.htdemucs.backends import Arithmetic, Branches, Core, load_core
from outboard.models.htdemucs.variants import VARIANTS, Variant
from outboard.models.inference import Arrays

_TRANSFORM_THREADS = 2

_log = logging.getLogger(__name__)


class LocalInference:
    """:class:`~outboard.models.inference.Inference` by this process, in one way.

    Args:
        how: what computes.
        root: folder with one folder per model; that of the settings unless given.
    """

    def __init__(self, how: Arithmetic, root: Path | None = None) -> None:
        self.arithmetic = how
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
                how = self.arithmetic
                _log.info("loading %s: %s, %s, %s", variant.name, how.backend, how.device, how.precision)
                self._cores[variant.name] = load_core(variant, how, self._root)
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
            if not isinstance(error, OutboardError):
                # Its words may hold paths of this machine: they are for the log.
                _log.error("a model failed", exc_info=error)
                error = Internal(f"a model failed ({type(error).__name__}), see the log", reason="MODEL_FAILED")
            self._future.set_exception(error)
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
