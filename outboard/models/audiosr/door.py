"""What goes through the door of `outboard.models.inference` for ``audiosr`` and ``audiosr_speech``, and back.

==============  =====================  =====================================================================
``window``      [B, 491520]            10.24 s of mono at 48 kHz, low-passed, highest sample about 0.5
``controls``    [B, 7]                 see :class:`Controls`; all zero asks for the shortest real computation
``audio``       [B, 491520] (output)   the same with an upper band, at the window's level and in step with it
==============  =====================  =====================================================================

Shapes are fixed, as for every model: a window of 5.12 s lies at the beginning of one of 10.24 s, and only that much is
computed. The key of the noise has 63 bits, in three numbers that float32 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.models.inference import Arrays

NAMES = ("audiosr", "audiosr_speech")
"""The models: one architecture, trained on sounds of all kinds, and on speech."""
WEIGHTS = "audiosr.safetensors"
SAMPLE_RATE_HERTZ = 48_000
WINDOW_FRAMES = 491_520
SHORT_WINDOW_FRAMES = WINDOW_FRAMES // 2
SHORTEST_FRAMES = 30_720
"""What the network's strides divide: 0.64 s."""
CONTROLS = 7
_KEY_BITS = 21
_KEY_PART = 1 << _KEY_BITS

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Controls:
    """How one window is computed.

    Attributes:
        key: of its noise, 0 to 2**63 - 1: the same key, the same noise, whatever else is in the batch.
        frames: of the window that count, a multiple of 30720 up to 491520; 0: the shortest.
        cutoff_hertz: up to where the window is taken as it is.
        diffusion_steps: 1 to 1000; 0: 1.
        guidance_scale: of classifier-free guidance, at least 1; 0: 1, none.
    """

    key: int = 0
    frames: int = 0
    cutoff_hertz: float = 0.0
    diffusion_steps: int = 0
    guidance_scale: float = 0.0

    def packed(self) -> Audio:
        """float32 (7,)."""
        parts = [(self.key >> shift) % _KEY_PART for shift in (0, _KEY_BITS, 2 * _KEY_BITS)]
        rest = [self.frames, self.cutoff_hertz, self.diffusion_steps, self.guidance_scale]
        return np.array([*parts, *rest], np.float32)

    @classmethod
    def unpacked(cls, numbers: NDArray[np.floating]) -> Controls:
        """The same from float32 (7,), with zeros replaced and everything inside of its range."""
        parts = [int(part) % _KEY_PART for part in numbers[:3]]
        frames = int(np.clip(int(numbers[3]) // SHORTEST_FRAMES * SHORTEST_FRAMES, SHORTEST_FRAMES, WINDOW_FRAMES))
        return cls(
            key=parts[0] | parts[1] << _KEY_BITS | parts[2] << 2 * _KEY_BITS,
            frames=frames,
            cutoff_hertz=float(numbers[4]),
            diffusion_steps=int(np.clip(numbers[5], 1, 1000)),
            guidance_scale=max(1.0, float(numbers[6])),
        )


def asked(
    infer: Callable[[str, Arrays], Future[Arrays]],
    model: str,
    audio: Audio,
    key: int,
    cutoff_hertz: float,
    diffusion_steps: int,
    guidance_scale: float,
) -> Future[Audio]:
    """One window through the door: (frames,) in, (frames,) out; frames is 491520 or 245760."""
    window = np.zeros((1, WINDOW_FRAMES), np.float32)
    window[0, : audio.size] = audio
    controls = Controls(key, audio.size, cutoff_hertz, diffusion_steps, guidance_scale)
    answer = infer(model, {"window": window, "controls": controls.packed()[None]})
    given: Future[Audio] = Future()

    def tell(done: Future[Arrays]) -> None:
        if done.cancelled():
            given.cancel()
        elif (error := done.exception()) is not None:
            if not given.cancelled():
                given.set_exception(error)
        elif not given.cancelled():
            given.set_result(np.array(done.result()["audio"][0, : audio.size]))

    given.add_done_callback(lambda one: answer.cancel() if one.cancelled() else None)
    answer.add_done_callback(tell)
    return given
