"""The model repository, read as Triton reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from outboard.models.htdemucs.variants import variants_of
from outboard.models.triton import SEPARATION
from outboard.models.triton_connection import INVENTORY
from outboard.models.triton_precision import DEFAULT_PRECISION, precision

_REPOSITORY = Path(__file__).resolve().parents[2] / "services" / "separator" / "model_repository"
_KINDS = {"config.pbtxt": "KIND_GPU", "configs/cpu.pbtxt": "KIND_CPU"}


def _configuration(model: str, file: str) -> Any:
    return text_format.Parse((_REPOSITORY / model / file).read_text(), model_config_pb2.ModelConfig())


def networks(model: str) -> tuple[str, ...]:
    return tuple(variant.name for variant in variants_of(model))


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


@pytest.mark.parametrize(("file", "name"), [("config.pbtxt", ""), ("configs/cpu.pbtxt", "cpu")])
def test_the_inventory_tells_the_precision_of_the_configurations_in_use(file: str, name: str) -> None:
    """The inventory knows which configurations the server uses, and reads each network's precision off them."""
    given = _configuration(INVENTORY, file).parameters
    assert (given["configuration"].string_value if "configuration" in given else "") == name
    parameters = _configuration("htdemucs", file).parameters
    expected = parameters["precision"].string_value if "precision" in parameters else DEFAULT_PRECISION
    assert precision(_REPOSITORY, networks("htdemucs"), name) == expected
    assert precision(_REPOSITORY, networks("htdemucs_ft"), name) == expected


def test_networks_of_one_model_may_differ_in_precision(tmp_path: Path) -> None:
    """Each way is told once, and a network without a configuration computes in float32."""
    folder = tmp_path / "htdemucs_ft_drums"
    folder.mkdir()
    (folder / "config.pbtxt").write_text('parameters { key: "precision" value { string_value: "fp16" } }')
    assert sorted(precision(tmp_path, networks("htdemucs_ft")).split("+")) == ["fp16", "fp32"]
