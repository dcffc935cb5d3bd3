"""DDIM sampling of latents with classifier-free guidance, each window with noise of its own.

The schedule is upstream's: 1000 steps on a cosine (Nichol & Dhariwal 2021, offset 0.008), a denoiser that predicts the
velocity v (Salimans & Ho 2022), uniform DDIM steps with eta 1 (Song et al. 2021, eq. 12 and 16) and, in the
unconditional pass, the constant -11.4981 for the latents of silence.

Noise comes from a counter-based generator (Philox) under the window's key, on the CPU: the same on every device and in
every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outboard.models.audiosr.network import LATENT_CHANNELS, LATENT_STRIDE, MEL_BANDS, Networks

_STEPS = 1000
_COSINE_OFFSET = 0.008
_SILENCE_LATENT = -11.4981


class Noise:
    """Normal noise for the windows of a batch.

    Args:
        keys: of the windows, 0 to 2**63 - 1.
        mel_frames: T of each.
        device: where it is needed.
    """

    def __init__(self, keys: Sequence[int], mel_frames: int, device: torch.device) -> None:
        self._draws = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self._shape = (LATENT_CHANNELS, mel_frames // LATENT_STRIDE, MEL_BANDS // LATENT_STRIDE)
        self._device = device

    def __call__(self) -> Tensor:
        """The next (B, 16, T / 8, 32)."""
        drawn = np.stack([draw.standard_normal(self._shape, dtype=np.float32) for draw in self._draws])
        return torch.from_numpy(drawn).to(self._device)


@dataclass(frozen=True)
class _Step:
    """One step of the sampler: its number of 1000, and powers of signal there and after it."""

    number: int
    signal: float
    signal_after: float

    @property
    def spread(self) -> float:
        """Deviation of the noise that is added, eta 1."""
        after, before = 1.0 - self.signal_after, 1.0 - self.signal
        return float(np.sqrt(max(0.0, after / before * (1.0 - self.signal / self.signal_after))))


def signal_powers() -> NDArray[np.float64]:
    """Power of the signal that is left after each of the 1000 steps, falling from 1 to 0."""
    times = np.arange(_STEPS + 1) / _STEPS + _COSINE_OFFSET
    whole = np.cos(times / (1.0 + _COSINE_OFFSET) * np.pi / 2.0) ** 2
    powers: NDArray[np.float64] = whole[1:] / whole[0]
    return powers


def _steps(count: int) -> list[_Step]:
    """The steps in the order in which they are taken; as many as asked for, or a few more where 1000 is no multiple."""
    powers = signal_powers()
    numbers = np.minimum(np.arange(0, _STEPS, _STEPS // count) + 1, _STEPS - 1)
    before = [powers[0], *powers[numbers[:-1]]]
    made = [_Step(int(n), float(powers[n]), float(after)) for n, after in zip(numbers, before, strict=True)]
    return made[::-1]


def sampled(networks: Networks, condition: Tensor, noise: Noise, count: int, guidance_scale: float) -> Tensor:
    """Latents (B, 16, T / 8, 32) that fit a condition of the same shape.

    Args:
        networks: on the condition's device.
        condition: latents of the low-passed audio.
        noise: of the batch; its next draws.
        count: of steps, 1 to 1000.
        guidance_scale: 1 leaves out the unconditional pass, and so half of the work.
    """
    latents = noise()
    silence = torch.full_like(condition, _SILENCE_LATENT)
    for step in _steps(count):
        velocity = networks.predicted(latents, step.number, condition).float()
        if guidance_scale != 1.0:
            unconditional = networks.predicted(latents, step.number, silence).float()
            velocity = unconditional + guidance_scale * (velocity - unconditional)
        signal, loss = step.signal**0.5, (1.0 - step.signal) ** 0.5
        clean = signal * latents - loss * velocity
        noisy = signal * velocity + loss * latents
        direction = max(0.0, 1.0 - step.signal_after - step.spread**2) ** 0.5
        latents = step.signal_after**0.5 * clean + direction * noisy + step.spread * noise()
    return latents
