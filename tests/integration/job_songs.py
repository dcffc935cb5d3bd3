"""Songs made for jobs that only just can be done, or cannot, and the way through the mesh."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from outboard.client import Client
from outboard.v1 import job_service_pb2 as v1

RATE_HERTZ = 48_000
Samples = NDArray[np.floating[Any]]


def tone(seconds: float, rate_hertz: int = RATE_HERTZ, channels: int = 2) -> Samples:
    wave = 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(round(seconds * rate_hertz)) / rate_hertz)
    return np.repeat(wave[:, None], channels, axis=1)


def wav(samples: Samples, rate_hertz: int = RATE_HERTZ, subtype: str = "FLOAT") -> bytes:
    """A file of samples of shape (frames, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hertz, subtype=subtype, format="WAV")
    return file.getvalue()


def run(client: Client, data: bytes, **fields: Any) -> v1.Job:
    upload = client.upload(data)
    job = v1.Job(song=v1.SongInput(upload=upload.name, file_name="../../../etc/song.wav"), **fields)
    return client.wait(client.create_job(job).name)
