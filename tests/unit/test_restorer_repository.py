"""The restorer's model repository, read as Triton reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from outboard.models.audiosr.door import NAMES, SHORT_WINDOW_FRAMES, SHORTEST_FRAMES, WINDOW_FRAMES
from outboard.models.audiosr.served import INVENTORY, SIGNATURES
from outboard.models.triton_precision import precision

_SERVICES = Path(__file__).resolve().parents[2] / "services"
_REPOSITORY = _SERVICES / "restorer" / "model_repository"
_SEPARATION = _SERVICES / "separator" / "model_repository"
_KINDS = {"config.pbtxt": "KIND_GPU", "configs/cpu.pbtxt": "KIND_CPU"}


def _configuration(path: Path) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_both_repositories_can_be_served_side_by_side() -> None:
    """The repository holds the models that clients ask for, an inventory, no other, and no name of the separator's."""
    names = {path.name for path in _REPOSITORY.iterdir()}
    assert names == {*NAMES, INVENTORY}
    assert not names & {path.name for path in _SEPARATION.iterdir()}


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("file", _KINDS)
def test_shapes_queues_and_turns(model: str, file: str) -> None:
    """Names, types and shapes are those that clients check, batches are shared, queues have a bound, and one network of
    the server computes at a time: the resource is the one that the separation networks take.
    """
    configuration = _configuration(_REPOSITORY / model / file)
    assert configuration.name == model
    assert {tensor.name: tuple(tensor.dims) for tensor in configuration.input} == SIGNATURES[model].inputs
    assert {tensor.name: tuple(tensor.dims) for tensor in configuration.output} == SIGNATURES[model].outputs
    types = {tensor.data_type for tensor in (*configuration.input, *configuration.output)}
    assert types == {model_config_pb2.TYPE_FP32}
    batching = configuration.dynamic_batching
    assert max(batching.preferred_batch_size) == configuration.max_batch_size
    assert batching.default_queue_policy.max_queue_size > configuration.max_batch_size
    assert batching.default_queue_policy.default_timeout_microseconds > 0
    (group,) = configuration.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == _KINDS[file]
    (separating,) = _configuration(_SEPARATION / "htdemucs" / file).instance_group
    assert (group.count, group.rate_limiter) == (1, separating.rate_limiter)
    assert {sample.batch_size for sample in configuration.model_warmup} == {1}


def test_windows_fit_the_networks_strides() -> None:
    """Windows are whole numbers of the shortest computation."""
    assert WINDOW_FRAMES % SHORTEST_FRAMES == SHORT_WINDOW_FRAMES % SHORTEST_FRAMES == 0
    assert (round(10.24 * 48_000), round(5.12 * 48_000)) == (WINDOW_FRAMES, SHORT_WINDOW_FRAMES)


@pytest.mark.parametrize(("name", "expected"), [("", "fp16"), ("cpu", "fp32")])
def test_the_inventory_knows_the_precision(name: str, expected: str) -> None:
    """Results are named after what the configuration in use says."""
    assert precision(_REPOSITORY, ("audiosr",), name) == expected
