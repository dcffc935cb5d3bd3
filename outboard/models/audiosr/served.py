"""AudioSR on a Triton server: what its models take and give, and how long they are kept."""

from __future__ import annotations

from outboard.models.audiosr.door import CONTROLS, NAMES, WINDOW_FRAMES
from outboard.models.triton import TritonInference
from outboard.models.triton_connection import Signature
from outboard.settings import TritonSettings

INVENTORY = "restorer_inventory"
SIGNATURES = {
    name: Signature({"window": (WINDOW_FRAMES,), "controls": (CONTROLS,)}, {"audio": (WINDOW_FRAMES,)})
    for name in NAMES
}
"""As `outboard.models.audiosr.door` lists them."""
HUNG_SECONDS = 3600.0
"""A window takes seconds of a GPU, but it may wait for those of many songs, and no waiting may decide which engine a
stem gets: only a server that has hung does."""
IDLE_SECONDS = 600.0
"""Time without a window after which the networks make room for others on the GPU."""


def client(settings: TritonSettings) -> TritonInference:
    """A client of the server that settings name.

    Raises:
        ResourceExhausted: there is too little shared memory for what the settings ask of it.
    """
    patient = settings.model_copy(update={"deadline_seconds": max(settings.deadline_seconds, HUNG_SECONDS)})
    return TritonInference(patient, SIGNATURES, inventory=INVENTORY, unload_seconds=IDLE_SECONDS)
