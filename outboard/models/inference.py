"""One small door to every model, whoever computes it: this process, or a Triton server.

Names, shapes and types at this door, the same for every implementation:

==================================================  =========================  ===============================
model                                               inputs                     outputs
==================================================  =========================  ===============================
``htdemucs``                                        ``mix`` [B, 2, 343980]     ``stems`` [B, 4, 2, 343980]
``htdemucs_6s``                                     ``mix`` [B, 2, 343980]     ``stems`` [B, 6, 2, 343980]
``htdemucs_ft_drums``, ``_bass``, ``_other``,       ``mix`` [B, 2, 343980]     ``stems`` [B, 1, 2, 343980]
``_vocals``: the bag's networks, each only for its
own source
==================================================  =========================  ===============================

All float32, C-contiguous, B at least 1; 343,980 frames are 7.8 s of 44.1 kHz stereo. The order of the stems is
upstream's: drums, bass, other, vocals, then guitar, piano. STFT and iSTFT happen behind this door
(:mod:`outboard.models.htdemucs.transform`), the normalisation by the song's mean and deviation before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Inference(Protocol):
    """Computes models on batches of fixed shape. Safe to call from several threads at once."""

    def infer(self, model: str, inputs: Arrays) -> Future[Arrays]:
        """Queues one batch and returns at once.

        Args:
            model: a name of the table above.
            inputs: arrays by name; not to be written to until the future is done.

        Returns:
            The outputs by name. ``cancel`` on a batch that has not begun takes it out of the queue. The future fails
            with an :class:`~outboard.errors.OutboardError`: MODEL_WEIGHTS_MISSING, MODEL_WEIGHTS_INVALID,
            MODEL_INVALID, MODEL_SERVER_UNAVAILABLE.
        """
        ...

    def close(self) -> None:
        """Cancels what is queued, waits for what runs, and frees the models."""
        ...
