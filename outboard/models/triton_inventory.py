"""The model ``inventory`` of the repository: which weights the server has and how exactly it computes, told without
loading a network.

A client needs both before it computes anything, since results are named after them, and has to know which engines
cannot be had for want of weights. The answer is JSON, as bytes: ``{MODEL: {"digest", "precision", "reason",
"message"}}`` with the models of the registry; ``reason`` and ``message`` are those of the error that loading would
raise, else empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from outboard.errors import OutboardError
from outboard.models.htdemucs.variants import VARIANTS, variants_of
from outboard.models.registry import find
from outboard.models.triton_precision import precision
from outboard.models.weights import WeightsFolder


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name.

    Attributes:
        networks: the repository's folders, by the model of the registry that they are of.
    """

    networks: Mapping[str, tuple[str, ...]] = {
        model: tuple(each.name for each in variants_of(model)) for model in {each.model for each in VARIANTS.values()}
    }

    def initialize(self, args: Mapping[str, str]) -> None:
        """Finds the configurations of the other models: those of the name that this model's own is served under."""
        repository = Path(args["model_repository"]).parent
        parameters = json.loads(args["model_config"]).get("parameters", {})
        configuration = parameters.get("configuration", {}).get("string_value", "")
        self._precisions = {
            model: precision(repository, networks, configuration) for model, networks in self.networks.items()
        }

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Looks at the folders anew for each call: weights may have been added."""
        answer = json.dumps({name: _described(name) | {"precision": how} for name, how in self._precisions.items()})
        # DLPack takes no array that cannot be written to.
        content = np.frombuffer(bytearray(answer.encode()), dtype=np.uint8)
        return [triton.InferenceResponse([triton.Tensor.from_dlpack("answer", content)]) for _ in requests]


def _described(model: str) -> dict[str, str]:
    try:
        return {"digest": WeightsFolder(find(model)).digest(), "reason": "", "message": ""}
    except OutboardError as error:
        return {"digest": "", "reason": error.reason, "message": error.message}
