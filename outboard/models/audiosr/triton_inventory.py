"""The model ``restorer_inventory``: which weights of AudioSR the server has, told without loading a network.

A name of its own, so that one server can serve the repositories of separation and restoration side by side.
"""

from __future__ import annotations

from outboard.models import triton_inventory
from outboard.models.audiosr.door import NAMES


class TritonPythonModel(triton_inventory.TritonPythonModel):
    """As the separator's, of other models."""

    networks = {name: (name,) for name in NAMES}  # noqa: RUF012 - as in the base class
