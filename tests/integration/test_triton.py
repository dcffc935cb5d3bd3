"""Inference by the real Triton server: numbers, shared batches, and every fault."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from outboard.errors import FailedPrecondition, OutboardError, ResourceExhausted
from outboard.models.inference import Arrays
from outboard.models.triton import TritonInference
from outboard.models.triton_connection import Signature
from outboard.models.triton_server import TritonServer
from outboard.settings import TritonSettings
from tests.integration.triton_toys import (
    BLOCK,
    BLOCK_SECONDS,
    CRASH,
    FAIL,
    FRAMES,
    QUEUE,
    SLEEP,
    SLEEP_SECONDS,
    model_process,
    needs_triton,
    statistics,
    window,
    write_repository,
)

pytestmark = needs_triton

_STEMS = Signature({"mix": (2, FRAMES)}, {"stems": (4, 2, FRAMES)})
_SIGNATURES = {"toy": _STEMS, "hasty": _STEMS, "misshapen": _STEMS, "broken": _STEMS, "absent": _STEMS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    with TritonServer(write_repository(folder / "models"), folder / "log", exit_seconds=2) as running:
        yield running


def _inference(server: TritonServer, **settings: Any) -> TritonInference:
    return TritonInference(TritonSettings(address=server.address, **settings), _SIGNATURES)


@pytest.fixture
def inference(server: TritonServer) -> Iterator[TritonInference]:
    made = _inference(server)
    yield made
    made.close()


def _stems(mix: np.ndarray) -> np.ndarray:
    return np.stack([mix * stem for stem in range(1, 5)], axis=1)


def _reason(future: Future[Arrays]) -> str:
    error = future.exception(timeout=60)
    assert isinstance(error, OutboardError), f"not an error of ours: {error!r}"
    return error.reason


@pytest.mark.parametrize("shared_memory", [False, True], ids=["wire", "shared memory"])
def test_numbers_arrive_as_they_were_sent(server: TritonServer, shared_memory: bool) -> None:
    """Every sample comes back exactly, in batches of one to four, over the wire and through shared memory."""
    inference = _inference(server, shared_memory=shared_memory, in_flight=3)
    mixes = [np.concatenate([window(seed=10 * i + j) for j in range(i % 4 + 1)]) for i in range(24)]
    futures = [inference.infer("toy", {"mix": mix}) for mix in mixes]
    for mix, future in zip(mixes, futures, strict=True):
        stems = future.result(timeout=60)["stems"]
        assert stems.dtype == np.float32
        np.testing.assert_array_equal(stems, _stems(mix))
    inference.close()


def test_windows_of_different_jobs_share_batches(server: TritonServer) -> None:
    """Windows that two clients send while the model is busy are computed together, as the server's statistics show."""
    jobs = [_inference(server), _inference(server)]
    for job in jobs:
        job.check("toy")
    before = statistics(server, "toy")
    busy = jobs[0].infer("toy", {"mix": window(SLEEP)})
    time.sleep(0.1)
    futures = [job.infer("toy", {"mix": window(seed=i)}) for i in range(2) for job in jobs]
    wait([busy, *futures], timeout=60)
    after = statistics(server, "toy")
    windows = after.inference_count - before.inference_count
    executions = after.execution_count - before.execution_count
    assert windows == 5
    assert executions == 2, "one busy window alone, then two windows of each job in one batch"
    for job in jobs:
        job.close()


def test_a_crashed_model_is_replaced_while_jobs_wait(server: TritonServer, inference: TritonInference) -> None:
    """Windows that meet a dead model's process wait until it is loaded again, and then succeed, in every job."""
    other = _inference(server)
    inference.check("toy")
    futures = [inference.infer("toy", {"mix": window(SLEEP, seed=i)}) for i in range(3)]
    os.kill(model_process(server, "toy"), signal.SIGKILL)
    futures += [job.infer("toy", {"mix": window(seed=i)}) for i in range(3) for job in (inference, other)]
    for future in futures:
        assert future.result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)
    other.close()


def test_a_probe_replaces_a_crashed_model_before_anybody_asks(server: TritonServer) -> None:
    """The watch notices a model's dead process, which the server calls ready, and replaces it without any job."""
    inference = _inference(server, probe_seconds=0.2)
    inference.check("toy")
    dead = model_process(server, "toy")
    os.kill(dead, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            if model_process(server, "toy") != dead and statistics(server, "toy").inference_count:
                break
        except (AssertionError, grpc.RpcError):
            continue
    else:
        pytest.fail("the model was not replaced within 20 s")
    inference.close()


def test_audio_that_kills_the_model_is_an_error(inference: TritonInference) -> None:
    """A window that crashes the model each time fails with MODEL_FAILED, and the model serves the next one."""
    assert _reason(inference.infer("toy", {"mix": window(CRASH)})) == "MODEL_FAILED"
    assert inference.infer("toy", {"mix": window()}).result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)


def test_a_full_queue_is_waited_for(server: TritonServer, caplog: pytest.LogCaptureFixture) -> None:
    """Windows that the server's full queue rejects are sent again until they succeed."""
    inference = _inference(server, in_flight=32)
    inference.check("toy")
    caplog.set_level(logging.INFO, logger="outboard.models")
    futures = [inference.infer("toy", {"mix": window(SLEEP)})]
    time.sleep(0.1)
    futures += [inference.infer("toy", {"mix": window(seed=i)}) for i in range(QUEUE + 16)]
    for future in futures:
        assert future.result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)
    assert "BUSY" in {getattr(record, "fault", "") for record in caplog.records}, "the queue was never full"
    inference.close()


def test_windows_that_wait_too_long_on_the_server_are_sent_again(server: TritonServer) -> None:
    """Under load the server's queue timeout expires, as its statistics show; what it rejects is sent again until it
    succeeds, and comes out right.
    """
    inference = _inference(server, in_flight=6)
    inference.check("hasty")
    before = statistics(server, "hasty").inference_stats.fail.count
    mixes = [window(SLEEP, seed=i) for i in range(6)]
    futures = [inference.infer("hasty", {"mix": mix}) for mix in mixes]
    for mix, future in zip(mixes, futures, strict=True):
        np.testing.assert_array_equal(future.result(timeout=60)["stems"], _stems(mix))
    expired = statistics(server, "hasty").inference_stats.fail.count - before
    assert expired >= 1, f"{expired} windows expired in the queue"
    inference.close()


def test_a_queue_that_stays_too_long_is_told(server: TritonServer) -> None:
    """A window that the server rejects for its long wait again and again, while the model answers nobody here, fails
    with MODEL_SERVER_BUSY, and says that waiting helps.
    """
    other, inference = _inference(server), _inference(server, deadline_seconds=0.7 * BLOCK_SECONDS)
    other.check("hasty")
    inference.view()  # so that the connection is there
    block = other.infer("hasty", {"mix": window(BLOCK)})
    time.sleep(0.2)
    future = inference.infer("hasty", {"mix": window()})
    assert _reason(future) == "MODEL_SERVER_BUSY"
    error = future.exception()
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after_seconds
    assert block.result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)
    for each in (other, inference):
        each.close()


@pytest.mark.parametrize("shared_memory", [False, True], ids=["wire", "shared memory"])
def test_a_restart_of_the_server_is_waited_for(server: TritonServer, shared_memory: bool) -> None:
    """Windows on a server that is killed are sent again when it is back, where nothing is loaded or registered."""
    inference = _inference(server, shared_memory=shared_memory)
    inference.check("toy")
    mixes = [window(SLEEP, seed=i) for i in range(4)]
    futures = [inference.infer("toy", {"mix": mix}) for mix in mixes]
    time.sleep(0.1)
    server.kill()
    server.start()
    for mix, future in zip(mixes, futures, strict=True):
        np.testing.assert_array_equal(future.result(timeout=60)["stems"], _stems(mix))
    inference.close()


def test_cancelled_windows_are_not_computed(server: TritonServer) -> None:
    """Cancelling takes windows out of the server's queue and out of the client's own."""
    inference = _inference(server, in_flight=6)
    inference.check("toy")
    before = statistics(server, "toy").inference_count
    futures = [inference.infer("toy", {"mix": np.repeat(window(SLEEP), 4, axis=0)}) for _ in range(12)]
    time.sleep(0.2)  # one batch computes, five wait on the server, six here
    assert [future.cancel() for future in futures[1:]] == [True] * 11
    futures[0].result(timeout=60)
    with pytest.raises(CancelledError):
        futures[-1].result(timeout=60)
    inference.check("toy")
    computed = statistics(server, "toy").inference_count - before
    # The server counts a window a moment after it has answered it: the probe may be missing.
    assert 4 <= computed <= 4 + 1, "the first batch, and the probe of the check"
    inference.close()


def test_other_shapes_are_refused_at_the_start(inference: TritonInference) -> None:
    """A model on the server with other outputs than expected is refused, with both shapes in the text."""
    with pytest.raises(FailedPrecondition, match=r"\(2, 2, 1000\).*\(4, 2, 1000\)") as caught:
        inference.check("misshapen")
    assert caught.value.reason == "MODEL_INVALID"
    assert _reason(inference.infer("misshapen", {"mix": window()})) == "MODEL_INVALID"


@pytest.mark.parametrize(
    "mix", [window()[:, :, :-1], window().astype(np.float64), window()[:0]], ids=["short", "double", "no window"]
)
def test_arrays_that_do_not_fit_are_refused(inference: TritonInference, mix: np.ndarray) -> None:
    """Arrays of another shape or type than the model takes fail with MODEL_INVALID before they are sent."""
    assert _reason(inference.infer("toy", {"mix": mix})) == "MODEL_INVALID"


def test_a_model_that_cannot_be_loaded_is_told(inference: TritonInference) -> None:
    """The error names the model, and carries the words of its code where there is code."""
    with pytest.raises(FailedPrecondition, match="the weights of this toy are gone"):
        inference.check("broken")
    problem = inference.view().problem("broken")
    assert problem is not None
    assert "the weights of this toy are gone" in problem.message
    assert inference.view().problem("toy") is None
    with pytest.raises(FailedPrecondition, match="no usable folder for 'absent'") as caught:
        inference.check("absent")
    assert caught.value.reason == "MODEL_SERVER_UNAVAILABLE"


def test_an_error_of_the_model_is_told(inference: TritonInference) -> None:
    """A window on which the model raises an error fails with MODEL_FAILED and the error's text, without paths."""
    future = inference.infer("toy", {"mix": window(FAIL)})
    assert _reason(future) == "MODEL_FAILED"
    assert str(future.exception()).endswith("ValueError: this toy is broken")


def test_an_absent_server_is_told() -> None:
    """Without a server at the address, windows fail with MODEL_SERVER_UNAVAILABLE when the patience is over."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        inference = TritonInference(TritonSettings(address=address, restart_seconds=0.3), _SIGNATURES)
        assert _reason(inference.infer("toy", {"mix": window()})) == "MODEL_SERVER_UNAVAILABLE"
        problem = inference.view().problem("toy")
        assert problem is not None
        assert problem.reason == "MODEL_SERVER_UNAVAILABLE"
        inference.close()


def test_a_slow_server_is_told(server: TritonServer) -> None:
    """A window that takes longer than its deadline fails with MODEL_SERVER_TIMEOUT."""
    inference = _inference(server, deadline_seconds=0.2)
    inference.check("toy")
    assert _reason(inference.infer("toy", {"mix": window(SLEEP)})) == "MODEL_SERVER_TIMEOUT"
    inference.close()


def test_a_lost_server_is_told(server: TritonServer) -> None:
    """When the server dies during the work and does not come back, windows fail with MODEL_SERVER_LOST."""
    inference = _inference(server, restart_seconds=2.0)
    inference.check("toy")
    future = inference.infer("toy", {"mix": window(SLEEP)})
    time.sleep(0.1)
    server.kill()
    assert _reason(future) == "MODEL_SERVER_LOST"
    server.start()
    assert inference.infer("toy", {"mix": window()}).result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)
    inference.close()


def test_a_long_queue_fails_no_window(server: TritonServer) -> None:
    """Windows that wait far longer than the deadline of one, in the own queue and on the server, are all computed as
    long as the model answers the others: a busy hour is no fault. A client that is closed takes no more.
    """
    deadline_seconds = 6 * SLEEP_SECONDS
    inference = _inference(server, in_flight=2, deadline_seconds=deadline_seconds)
    inference.check("toy")
    began = time.monotonic()
    futures = [inference.infer("toy", {"mix": window(SLEEP, seed=i)}) for i in range(20)]
    for future in futures:
        assert future.result(timeout=60)["stems"].shape == (1, 4, 2, FRAMES)
    waited = time.monotonic() - began
    assert waited > 3 * deadline_seconds, f"the last window waited {waited:.1f} s, no test of {deadline_seconds:.1f} s"
    inference.close()
    assert _reason(inference.infer("toy", {"mix": window()})) == "MODEL_SERVER_UNAVAILABLE"


def test_memory_of_a_cancelled_window_is_not_used_again_too_early(server: TritonServer) -> None:
    """While the server may still write a cancelled window's result, others take other slots or the wire; every result
    is right, and nothing is left in /dev/shm.
    """
    inference = _inference(server, in_flight=2, shared_memory=True)
    inference.check("toy")
    for _ in range(3):
        cancelled = [inference.infer("toy", {"mix": window(SLEEP)}) for _ in range(2)]
        time.sleep(0.05)
        for future in cancelled:
            future.cancel()
        mixes = [window(seed=i) for i in range(4)]
        futures = [inference.infer("toy", {"mix": mix}) for mix in mixes]
        for mix, future in zip(mixes, futures, strict=True):
            np.testing.assert_array_equal(future.result(timeout=60)["stems"], _stems(mix))
    inference.close()
    assert not list(Path("/dev/shm").glob(f"outboard-windows-{os.getpid()}-*"))
