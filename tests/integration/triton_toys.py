"""A repository of toy models in Triton's layout, with every fault that a model can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from outboard.models.triton_server import INSTALLATION, TritonServer

FRAMES = 1000
BATCH = 4
QUEUE = 8
# The first sample of a window tells the toy what to do.
CRASH, FAIL, SLEEP, BLOCK = -999.0, -998.0, -997.0, -996.0
SLEEP_SECONDS = 0.4
BLOCK_SECONDS = 3.0
QUEUE_TIMEOUT_SECONDS = 0.2
"""Of the model ``hasty``."""

needs_triton = pytest.mark.skipif(not INSTALLATION.is_dir(), reason="no Triton server here: `make triton` installs it")

# NumPy arrays cross in and out as DLPack capsules, as in the real model: this build spoils NumPy 2 arrays otherwise.
_MODEL = f"""
import os
import time

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        mix = np.from_dlpack(triton.get_input_tensor_by_name(request, "mix"))
        order = mix.flat[0]
        if order == {CRASH}:
            os._exit(3)
        if order == {FAIL}:
            raise ValueError("this toy is broken")
        if order in ({SLEEP}, {BLOCK}):
            time.sleep({SLEEP_SECONDS} if order == {SLEEP} else {BLOCK_SECONDS})
        stems = np.stack([mix * stem for stem in range(1, 5)], axis=1)
        return triton.InferenceResponse([triton.Tensor.from_dlpack("stems", stems)])
"""
_BROKEN = "raise RuntimeError('the weights of this toy are gone')\n"


def _configuration(name: str, outputs: str, policy: str) -> str:
    return f"""
name: "{name}"
backend: "python"
max_batch_size: {BATCH}
input [{{ name: "mix" data_type: TYPE_FP32 dims: [2, {FRAMES}] }}]
output [{{ name: "stems" data_type: TYPE_FP32 dims: [{outputs}] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{
  preferred_batch_size: [{BATCH}]
  max_queue_delay_microseconds: 1000
  default_queue_policy {{ {policy} }}
}}
"""


def write_repository(folder: Path) -> Path:
    """Models ``toy`` (stems are 1 to 4 times the mix), ``hasty`` (the same; windows may wait only a moment in its
    queue), ``misshapen`` (two stems declared) and ``broken``.
    """
    hasty = f"timeout_action: REJECT default_timeout_microseconds: {round(1e6 * QUEUE_TIMEOUT_SECONDS)}"
    bounded = f"max_queue_size: {QUEUE}"
    for name, outputs, code, policy in (
        ("toy", f"4, 2, {FRAMES}", _MODEL, bounded),
        ("hasty", f"4, 2, {FRAMES}", _MODEL, hasty),
        ("misshapen", f"2, 2, {FRAMES}", _MODEL, bounded),
        ("broken", f"4, 2, {FRAMES}", _BROKEN, bounded),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(code)
        (folder / name / "config.pbtxt").write_text(_configuration(name, outputs, policy))
    return folder


def window(order: float | None = None, seed: int = 0) -> NDArray[np.float32]:
    """One batch of noise of shape (1, 2, FRAMES), or one that carries an order."""
    made = np.random.default_rng(seed).standard_normal((1, 2, FRAMES)).astype(np.float32)
    if order is not None:
        made[0, 0, 0] = order
    return made


def model_process(server: TritonServer, model: str) -> int:
    """The process that computes a model."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode()
            if "python_backend_stub" not in command or f"/{model}/1/" not in command:
                continue
            parent = (folder / "status").read_text().partition("PPid:\t")[2].split()[0]
            if f"--grpc-port={server.address.rpartition(':')[2]}" in Path(f"/proc/{parent}/cmdline").read_text():
                return int(folder.name)
        except OSError:  # it has just ended
            continue
    raise AssertionError(f"no process computes {model}")


def statistics(server: TritonServer, model: str) -> Any:
    """The server's counts of a model."""
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ModelStatistics(messages.ModelStatisticsRequest(name=model)).model_stats[0]


def computing_seconds(counts: Any) -> float:
    """Time that a model has spent on its batches, by the server's counts; a batch counts once, however large."""
    phases = ("compute_input", "compute_infer", "compute_output")
    return 1e-9 * sum(getattr(batch, phase).ns for batch in counts.batch_stats for phase in phases)
