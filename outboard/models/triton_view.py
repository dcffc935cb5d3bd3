"""What a Triton server tells of its models and weights without loading a network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from outboard.errors import FailedPrecondition, OutboardError
from outboard.models.triton_connection import INVENTORY, Connection
from outboard.models.triton_faults import Fault, absent_error, fault_of, final_error, load_error

# The inventory reads all weights at its first answer, and keeps their digests.
_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class View:
    """One look at a server.

    Attributes:
        models: names in its repository, with the text of the error where one could not be loaded.
        inventory: of its weights, see `outboard.models.triton_inventory`; empty where the repository has none.
        error: why nothing could be seen.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    inventory: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    error: OutboardError | None = None

    def problem(self, model: str) -> OutboardError | None:
        """Why a model of the repository cannot be had."""
        if self.error:
            return self.error
        if model not in self.models:
            return absent_error(model)
        return load_error(model, self.models[model]) if self.models[model] else None

    def weights_problem(self, name: str) -> OutboardError | None:
        """Why the weights of a model of the registry cannot be used."""
        told = self.inventory.get(name)
        return FailedPrecondition(told["message"], reason=told["reason"]) if told and told["reason"] else None

    def weights_digest(self, name: str) -> str:
        """SHA-256 of the weights of a model of the registry; empty where it is not known."""
        told = self.inventory.get(name)
        return told["digest"] if told else ""

    def precision(self, name: str) -> str:
        """How exactly the server computes a model of the registry; empty where it is not known."""
        told = self.inventory.get(name)
        return told["precision"] if told else ""


async def look(connection: Connection, name: str = INVENTORY) -> View:
    """Asks the server, with the inventory of that name; what goes wrong stands in the view."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            models = await connection.repository()
            inventory = await _inventory(connection, name) if name in models else {}
            return View({model: text for model, text in models.items() if model != name}, inventory)
    except grpc.RpcError as error:
        return View(error=final_error(name, fault_of(error), error.details() or "", was_reached=False))
    except TimeoutError:
        return View(error=final_error(name, Fault.GONE, "", was_reached=False))


async def _inventory(connection: Connection, name: str) -> Mapping[str, Mapping[str, str]]:
    if not await connection.is_ready(name):
        await connection.load(name)
    try:
        return await connection.inventory(name)
    except grpc.RpcError as error:
        if fault_of(error) is not Fault.CRASHED:
            raise
    await connection.unload(name)
    while await connection.is_ready(name):
        await asyncio.sleep(_POLL_SECONDS)
    await connection.load(name)
    return await connection.inventory(name)
