"""What Triton's status codes and texts are taken for, and what a caller is told."""

from __future__ import annotations

import grpc
import pytest

from outboard.errors import FailedPrecondition
from outboard.models.triton_faults import Fault, fault_of, final_error, load_error
from outboard.v1 import error_reason_pb2


class _Error(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text


@pytest.mark.parametrize(
    ("code", "text", "fault"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", Fault.GONE),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", Fault.GONE),
        (grpc.StatusCode.UNAVAILABLE, "[request id: <id_unknown>] Exceeds maximum queue size", Fault.BUSY),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", Fault.BUSY),
        (grpc.StatusCode.INTERNAL, "Stub process 'htdemucs_0_0' is not healthy.", Fault.CRASHED),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'htdemucs' is not found", Fault.UNLOADED),
        (grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'outboard-windows-1'", Fault.FORGOTTEN),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'mix'", Fault.REFUSED),
        (grpc.StatusCode.INTERNAL, "Failed to process the request(s)", Fault.FAILED),
    ],
)
def test_faults_are_told_apart(code: grpc.StatusCode, text: str, fault: Fault) -> None:
    """Each fault of the server is recognised by the code and text that Triton 2.51 gives."""
    assert fault_of(_Error(code, text)) is fault


def test_every_fault_has_a_reason_of_the_contract_and_most_their_own() -> None:
    """Each fault ends in an error whose reason stands in the contract; a server that was never there and one that went
    away are told apart.
    """
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    reasons = {
        (fault, was_reached): final_error("htdemucs", fault, "text", was_reached=was_reached).reason
        for fault in Fault
        for was_reached in (False, True)
    }
    assert set(reasons.values()) <= names
    assert reasons[Fault.GONE, False] == "MODEL_SERVER_UNAVAILABLE"
    assert reasons[Fault.GONE, True] == "MODEL_SERVER_LOST"
    assert reasons[Fault.BUSY, True] == "MODEL_SERVER_BUSY"


def test_an_error_of_the_models_own_code_keeps_its_reason() -> None:
    """What ``model.py`` puts in brackets comes out as the reason; the rest of Triton's text stays away."""
    text = (
        "load failed for model 'htdemucs': version 1 is at UNAVAILABLE state: Internal: TritonModelException: "
        "[MODEL_WEIGHTS_TRUNCATED] the weights file 955717e8.safetensors ends too early\n\nAt:\n  model.py(3)"
    )
    error = load_error("htdemucs", text)
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "MODEL_WEIGHTS_TRUNCATED"
    assert error.message == "the weights file 955717e8.safetensors ends too early"
