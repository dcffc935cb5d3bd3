"""The model repository, read as Triton reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from outboard.models.triton import SEPARATION
from outboard.models.triton_connection import INVENTORY

_REPOSITORY = Path(__file__).resolve().parents[2] / "services" / "separator" / "model_repository"
_KINDS = {"config.pbtxt": "KIND_GPU", "configs/cpu.pbtxt": "KIND_CPU"}


def _configuration(model: str, file: str) -> Any:
    return text_format.Parse((_REPOSITORY / model / file).read_text(), model_config_pb2.ModelConfig())


def test_every_network_is_there() -> None:
    """The repository holds the models that clients ask for, the inventory, and no other."""
    assert {path.name for path in _REPOSITORY.iterdir()} == {*SEPARATION, INVENTORY}


@pytest.mark.parametrize("model", SEPARATION)
@pytest.mark.parametrize("file", _KINDS)
def test_shapes_are_those_of_the_clients(model: str, file: str) -> None:
    """A model's configuration declares the name, types and shapes that clients check it for."""
    configuration = _configuration(model, file)
    assert configuration.name == model
    assert {tensor.name: tuple(tensor.dims) for tensor in configuration.input} == SEPARATION[model].inputs
    assert {tensor.name: tuple(tensor.dims) for tensor in configuration.output} == SEPARATION[model].outputs
    types = {tensor.data_type for tensor in (*configuration.input, *configuration.output)}
    assert types == {model_config_pb2.TYPE_FP32}


@pytest.mark.parametrize("model", SEPARATION)
@pytest.mark.parametrize("file", _KINDS)
def test_batches_queues_and_turns(model: str, file: str) -> None:
    """Windows share batches, queues have a bound and a timeout, one model computes at a time, and the largest GPU batch
    is warm before the model is ready.
    """
    configuration = _configuration(model, file)
    batching = configuration.dynamic_batching
    assert max(batching.preferred_batch_size) == configuration.max_batch_size
    assert 0 < batching.max_queue_delay_microseconds <= 5_000
    assert batching.default_queue_policy.max_queue_size > configuration.max_batch_size
    assert batching.default_queue_policy.default_timeout_microseconds > 0
    (group,) = configuration.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == _KINDS[file]
    assert (group.count, group.rate_limiter.resources[0].count) == (1, 1)
    warm = {sample.batch_size for sample in configuration.model_warmup}
    assert warm >= ({1, *batching.preferred_batch_size} if file == "config.pbtxt" else {1})
