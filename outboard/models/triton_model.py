"""What runs inside Triton's Python backend: the ``model.py`` of every separation network imports its class from here.

The weights are those of ``OUTBOARD_MODELS``, found and checked by the same code that serves the local engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outboard.models.htdemucs.network import Core, keep_positions, load
from outboard.models.htdemucs.variants import VARIANTS
from outboard.models.registry import find
from outboard.models.triton_backend import batched, configuration, device_of, precision_of, told_to_triton
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
        with told_to_triton():
            self._windows = _windows(args)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Computes the windows of all requests as one batch."""
        return batched(requests, ("mix",), "stems", self._windows)


def _windows(args: dict[str, str]) -> Windows:
    config, parameters = configuration(args)
    device, precision = device_of(args), precision_of(parameters, PRECISIONS)
    batch_sizes = sorted({1, *config["dynamic_batching"]["preferred_batch_size"], config["max_batch_size"]})
    keep_positions()
    core = _core(args["model_name"]).to(device)
    cuda_graphs = parameters.get("cuda_graphs", "false") == "true"
    return Windows(core, device, precision, batch_sizes, cuda_graphs=cuda_graphs)


def _core(name: str) -> Core:
    variant = VARIANTS[name]
    weights = WeightsFolder(find(variant.model)).require(f"{variant.signature}.safetensors")
    return Core(load(weights, variant.sources), variant.kept)
