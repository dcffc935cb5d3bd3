"""What runs inside Triton's Python backend: the ``model.py`` of every separation network imports its class from here.

Arrays cross the border as DLPack capsules, in and out: this build of the backend spoils NumPy 2 arrays without a word.
The weights are those of ``OUTBOARD_MODELS``, found and checked by the same code that serves the local engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack

from outboard.errors import InvalidInput, OutboardError
from outboard.models.htdemucs.network import Core, keep_positions, load
from outboard.models.htdemucs.variants import VARIANTS
from outboard.models.registry import find
from outboard.models.triton_precision import DEFAULT_PRECISION
from outboard.models.triton_torch import PRECISIONS, Windows
from outboard.models.weights import WeightsFolder


class TritonPythonModel:
    """One instance of a model; Triton calls these methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network.

        Args:
            args: Triton's; ``model_name``, ``model_config`` (JSON), ``model_instance_kind`` and
                ``model_instance_device_id`` are read.

        Raises:
            triton.TritonModelException: the weights are missing or wrong; the reason stands in brackets.
        """
        config = json.loads(args["model_config"])
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        try:
            self._windows = _windows(args["model_name"], config, device)
        except OutboardError as error:
            # `outboard.models.triton_faults` makes the same error of it on the other side.
            raise triton.TritonModelException(f"[{error.reason}] {error.message}") from error

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Computes the windows of all requests as one batch."""
        alive = [request for request in requests if not request.is_cancelled()]
        mixes = [from_dlpack(triton.get_input_tensor_by_name(each, "mix").to_dlpack()) for each in alive]
        stems = iter(torch.split(self._windows(torch.cat(mixes)), [len(mix) for mix in mixes]) if alive else ())
        return [_response(next(stems)) if request in alive else _cancelled() for request in requests]


def _windows(name: str, config: dict[str, Any], device: str) -> Windows:
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    precision = parameters.get("precision", DEFAULT_PRECISION)
    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise InvalidInput(f"precision must be one of {allowed}, not {precision!r}", reason="MODEL_INVALID")
    batch_sizes = sorted({1, *config["dynamic_batching"]["preferred_batch_size"], config["max_batch_size"]})
    keep_positions()
    core = _core(name).to(device)
    cuda_graphs = parameters.get("cuda_graphs", "false") == "true"
    return Windows(core, device, precision, batch_sizes, cuda_graphs=cuda_graphs)


def _core(name: str) -> Core:
    variant = VARIANTS[name]
    weights = WeightsFolder(find(variant.model)).require(f"{variant.signature}.safetensors")
    return Core(load(weights, variant.sources), variant.kept)


def _response(stems: torch.Tensor) -> Any:
    return triton.InferenceResponse([triton.Tensor.from_dlpack("stems", stems.contiguous())])


def _cancelled() -> Any:
    return triton.InferenceResponse(error=triton.TritonError("cancelled", triton.TritonError.CANCELLED))
