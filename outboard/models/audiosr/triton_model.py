"""What runs inside Triton's Python backend for AudioSR: the ``model.py`` of both models imports its class from here.

Weights are found and checked by the code that serves the local engine. On a GPU one step is computed on a full window
before the model counts as ready, so that what does not fit into the memory is told when the model is loaded and not in
the middle of a song.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from outboard.models.audiosr.door import WEIGHTS, WINDOW_FRAMES, Controls
from outboard.models.audiosr.network import load
from outboard.models.audiosr.windows import PRECISIONS, Windows
from outboard.models.registry import find
from outboard.models.triton_backend import batched, configuration, device_of, precision_of, told_to_triton
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
        device = device_of(args)
        with told_to_triton():
            _, parameters = configuration(args)
            precision = precision_of(parameters, PRECISIONS)
            weights = WeightsFolder(find(args["model_name"])).require(WEIGHTS)
            self._windows = Windows(load(weights, device), precision)
        if device != "cpu":
            self._windows(torch.zeros(1, WINDOW_FRAMES), Controls(frames=WINDOW_FRAMES).packed()[None])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Computes the windows of all requests as one batch."""
        return batched(requests, ("window", "controls"), "audio", self._computed)

    def finalize(self) -> None:
        """Gives the device's memory back."""
        del self._windows
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _computed(self, windows: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
        return self._windows(windows, controls.cpu().numpy())
