"""What the classes that Triton's Python backend runs have in common: settings, refusals, and requests as one batch.

Arrays cross the border as DLPack capsules, in and out: this build of the backend spoils NumPy 2 arrays without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack

from outboard.errors import InvalidInput, OutboardError
from outboard.models.triton_precision import DEFAULT_PRECISION

Precision = TypeVar("Precision", bound=str)


def configuration(args: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A model's configuration as Triton gives it, and its parameters by name."""
    config = json.loads(args["model_config"])
    return config, {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def device_of(args: Mapping[str, str]) -> str:
    """Where an instance computes: ``cpu`` or ``cuda:N``."""
    return f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"


def precision_of(parameters: Mapping[str, str], allowed: Sequence[Precision]) -> Precision:
    """How exactly a model is to compute.

    Raises:
        InvalidInput: MODEL_INVALID, not one of those allowed.
    """
    asked = parameters.get("precision", DEFAULT_PRECISION)
    for known in allowed:
        if known == asked:
            return known
    raise InvalidInput(f"precision must be one of {', '.join(allowed)}, not {asked!r}", reason="MODEL_INVALID")


@contextmanager
def told_to_triton() -> Iterator[None]:
    """Makes our errors Triton's, with the reason in brackets for `outboard.models.triton_faults` on the other side."""
    try:
        yield
    except OutboardError as error:
        raise triton.TritonModelException(f"[{error.reason}] {error.message}") from error


def batched(
    requests: Sequence[Any], inputs: Sequence[str], output: str, compute: Callable[..., torch.Tensor]
) -> list[Any]:
    """The answers to all requests, computed as one batch; whose caller has gone is not computed.

    Args:
        requests: Triton's, each with tensors of the same names; along their first axis lie its windows.
        inputs: the tensors' names, in the order in which ``compute`` takes them.
        output: name of the tensor of the answers.
        compute: of all windows, one row of results each.
    """
    alive = [request for request in requests if not request.is_cancelled()]
    rows: Iterator[torch.Tensor] = iter(())
    if alive:
        given = [
            [from_dlpack(triton.get_input_tensor_by_name(each, name).to_dlpack()) for each in alive] for name in inputs
        ]
        rows = iter(torch.split(compute(*map(torch.cat, given)), [len(each) for each in given[0]]))
    return [_response(output, next(rows)) if request in alive else _cancelled() for request in requests]


def _response(name: str, tensor: torch.Tensor) -> Any:
    return triton.InferenceResponse([triton.Tensor.from_dlpack(name, tensor.contiguous())])


def _cancelled() -> Any:
    return triton.InferenceResponse(error=triton.TritonError("cancelled", triton.TritonError.CANCELLED))
