"""What stands around HTDemucs' core network: STFT of a window before it, iSTFT and the sum of both branches after it.

    mix [B, 2, N] ─┬─ spectrogram ─► core ─► spectrogram branch [B, S, 4, F, T] ─► iSTFT ─┬─► stems [B, S, 2, N]
                   └──────────────► core ─► waveform branch [B, S, 2, N] ────────────────┘

The same lines serve every home of the model: NumPy arrays are transformed by SciPy (the local engine on a CPU, and
Triton's ``model.py`` on a CPU), torch tensors by torch on the device where they lie (``model.py`` and the local engine
on a GPU, where copying spectrograms would cost more than the network). Nothing here imports torch.

The mathematics is that of ``demucs.htdemucs.HTDemucs._spec`` and ``_ispec`` with the padding that cancels out left
away: frame j of T = ceil(N / H) covers samples [j*H - 3H/2, j*H + 5H/2) of the window (W = 4096, H = W/4), reflected at
its ends; periodic Hann; scaled by 1/sqrt(W); the Nyquist bin is dropped, and is zero on the way back. Hann squared at
this hop adds up to 3/2 everywhere inside.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import scipy.fft

SAMPLE_RATE_HERTZ = 44_100
CHANNELS = 2
SEGMENT_FRAMES = 343_980
"""Frames of one window of the published models: 39/5 s."""
WINDOW_FRAMES = 4096
HOP_FRAMES = WINDOW_FRAMES // 4
BINS = WINDOW_FRAMES // 2
"""Without the Nyquist bin."""
_EDGE_FRAMES = HOP_FRAMES // 2 * 3
_COLA_SUM = 1.5

# NumPy's or torch's: both have the few functions that are used here, under the same names.
Array = Any


def spectrogram_frames(segment_frames: int) -> int:
    """T: frames of the spectrogram of a window."""
    return -(-segment_frames // HOP_FRAMES)


def spectrogram(mix: Array) -> Array:
    """Complex spectrogram with its parts as channels, the core's second input.

    Args:
        mix: float32 [B, 2, N], N more than 3,156.

    Returns:
        float32 [B, 4, 2048, ceil(N / 1024)]: left real, left imaginary, right real, right imaginary.
    """
    xp, fft = _namespace(mix)
    batch, channels, length = mix.shape
    frames = spectrogram_frames(length)
    right_edge = _EDGE_FRAMES + frames * HOP_FRAMES - length
    head = xp.flip(mix[..., 1 : _EDGE_FRAMES + 1], (-1,))
    tail = xp.flip(mix[..., length - 1 - right_edge : length - 1], (-1,))
    hops = xp.concatenate((head, mix, tail), -1).reshape(batch, channels, frames + 3, HOP_FRAMES)
    windows = xp.concatenate([hops[:, :, i : i + frames] for i in range(4)], -1) * _window(mix)
    bins = fft.rfft(windows)[..., :BINS]
    parts = xp.stack((bins.real, bins.imag), 2).reshape(batch, 2 * channels, frames, BINS)
    return _contiguous(xp.moveaxis(parts, -1, -2))


def stems(spectrogram_branch: Array, waveform_branch: Array) -> Array:
    """Inverse transform of one branch, plus the other.

    Args:
        spectrogram_branch: float32 [B, S, 4, 2048, T], channels as from :func:`spectrogram`.
        waveform_branch: float32 [B, S, 2, N].

    Returns:
        float32 [B, S, 2, N].
    """
    xp, fft = _namespace(waveform_branch)
    batch, sources, channels, length = waveform_branch.shape
    frames = spectrogram_branch.shape[-1]
    parts = xp.moveaxis(spectrogram_branch.reshape(batch, sources, channels, 2, BINS, frames), -1, -2)
    # irfft takes the bin that is not there as zero.
    windows = fft.irfft(parts[:, :, :, 0] + 1j * parts[:, :, :, 1], WINDOW_FRAMES) * _inverse_window(waveform_branch)
    hops = windows.reshape(batch, sources, channels, frames, 4, HOP_FRAMES)
    padded = xp.zeros_like(hops[:, :, :, :1, 0])
    total = sum(_shifted(xp, padded, hops[..., i, :], i) for i in range(4))
    samples = total.reshape(batch, sources, channels, (frames + 3) * HOP_FRAMES)
    return _contiguous(samples[..., _EDGE_FRAMES : _EDGE_FRAMES + length] + waveform_branch)


def _shifted(xp: Any, empty: Array, hops: Array, by: int) -> Array:
    """The hops with ``by`` empty ones before and ``3 - by`` after them."""
    return xp.concatenate((*[empty] * by, hops, *[empty] * (3 - by)), 3)


def _namespace(array: Array) -> tuple[Any, Any]:
    if isinstance(array, np.ndarray):
        return np, scipy.fft
    torch = sys.modules["torch"]
    return torch, torch.fft


def _contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array.contiguous()


@functools.cache
def _hann() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW_FRAMES) / WINDOW_FRAMES)).astype(np.float32)


def _window(like: Array) -> Array:
    return _beside(_hann() / np.float32(np.sqrt(WINDOW_FRAMES)), like)


def _inverse_window(like: Array) -> Array:
    return _beside(_hann() * np.float32(np.sqrt(WINDOW_FRAMES) / _COLA_SUM), like)


def _beside(constant: Array, like: Array) -> Array:
    """The constant as the same kind of array, on the same device."""
    return constant if isinstance(like, np.ndarray) else sys.modules["torch"].from_numpy(constant).to(like.device)
