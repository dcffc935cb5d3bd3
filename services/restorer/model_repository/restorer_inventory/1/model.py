"""Which weights the server has."""

from outboard.models.audiosr.triton_inventory import TritonPythonModel

__all__ = ["TritonPythonModel"]
