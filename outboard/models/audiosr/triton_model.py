"""What runs inside Triton's Python backend for AudioSR: the ``model.py`` of both models imports its class from here.

As in `outboard.models.triton_model`, arrays cross the border as DLPack capsules, and weights are found and checked by
the code that serves the local engine. On a GPU one step is computed on a full window before the model counts as ready,
so that what does not fit into the memory is told when the model is loaded and not in the middle of a song.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack

from outboard.errors import InvalidInput, OutboardError
from outboard.models.audiosr.door import WEIGHTS, WINDOW_FRAMES, Controls
from outboard.models.audiosr.network import load
from outboard.models.audiosr.windows import PRECISIONS, Windows
from outboard.models.registry import find
from outboard.models.triton_precision import DEFAULT_PRECISION
from outboard.models.weights import WeightsFolder


class TritonPythonModel:
    """One instance of a model; Triton calls these methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the networks.

        Args:
            args: Triton's; ``model_name``, ``model_config`` (JSON), ``model_instance_kind`` and
                ``model_instance_device_id`` are read.

        Raises:
            triton.TritonModelException: the weights are missing or wrong; the reason stands in brackets.
        """
        is_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        try:
            self._windows = _windows(args["model_name"], json.loads(args["model_config"]), device)
        except OutboardError as error:
            # `outboard.models.triton_faults` makes the same error of it on the other side.
            raise triton.TritonModelException(f"[{error.reason}] {error.message}") from error
        if is_gpu:
            self._windows(torch.zeros(1, WINDOW_FRAMES), Controls(frames=WINDOW_FRAMES).packed()[None])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Computes the windows of all requests as one batch."""
        alive = [request for request in requests if not request.is_cancelled()]
        windows, controls = (
            [from_dlpack(triton.get_input_tensor_by_name(each, name).to_dlpack()) for each in alive]
            for name in ("window", "controls")
        )
        answers: Iterator[torch.Tensor] = iter(())
        if alive:
            computed = self._windows(torch.cat(windows), torch.cat(controls).cpu().numpy())
            answers = iter(torch.split(computed, [len(each) for each in windows]))
        return [_response(next(answers)) if request in alive else _cancelled() for request in requests]

    def finalize(self) -> None:
        """Gives the device's memory back."""
        del self._windows
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _windows(name: str, config: dict[str, Any], device: str) -> Windows:
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    precision = parameters.get("precision", DEFAULT_PRECISION)
    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise InvalidInput(f"precision must be one of {allowed}, not {precision!r}", reason="MODEL_INVALID")
    return Windows(load(WeightsFolder(find(name)).require(WEIGHTS), device), precision)


def _response(audio: torch.Tensor) -> Any:
    return triton.InferenceResponse([triton.Tensor.from_dlpack("audio", audio.contiguous())])


def _cancelled() -> Any:
    return triton.InferenceResponse(error=triton.TritonError("cancelled", triton.TritonError.CANCELLED))
