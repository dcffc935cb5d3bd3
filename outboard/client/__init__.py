"""Typed clients: of the jobs (`AsyncClient`, `Client`), and of each stage on its own."""

from outboard.client.jobs import ENDED, AsyncClient, Client, Job, Progress, artifact_path, failure
from outboard.client.stages import MasterClient, MixerClient, RestorerClient, SeparatorClient, Stem

__all__ = [
    "ENDED",
    "AsyncClient",
    "Client",
    "Job",
    "MasterClient",
    "MixerClient",
    "Progress",
    "RestorerClient",
    "SeparatorClient",
    "Stem",
    "artifact_path",
    "failure",
]
