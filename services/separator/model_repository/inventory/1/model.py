"""Which weights the server has."""

from outboard.models.triton_inventory import TritonPythonModel

__all__ = ["TritonPythonModel"]
