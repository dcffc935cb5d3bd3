"""The networks of this folder's name: the code is shared by all models of the repository."""

from outboard.models.audiosr.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
