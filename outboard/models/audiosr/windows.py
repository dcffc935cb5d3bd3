"""Windows of audio through AudioSR in batches: mel spectrogram, latents, sampling, mel, vocoder.

Below the cutoff the mel spectrogram that the vocoder gets is the window's own, so what the networks add is the band
above. A batch that does not fit into the device's memory is computed in halves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outboard.models.audiosr.door import SAMPLE_RATE_HERTZ, Controls
from outboard.models.audiosr.network import MEL_BANDS, Networks
from outboard.models.audiosr.sampling import Noise, sampled

Precision = Literal["fp32", "tf32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16")
_FFT_FRAMES = 2048
_HOP_FRAMES = 480
_LOWEST_HERTZ, _HIGHEST_HERTZ = 20.0, 24_000.0
_SMALLEST = 1e-5  # of a mel band's magnitude


class Windows:
    """Computes windows on one device.

    Args:
        networks: on the device.
        precision: "tf32" and "fp16" are for a GPU. Spectra and the vocoder are always float32.
    """

    def __init__(self, networks: Networks, precision: Precision = "fp32") -> None:
        self._networks = networks
        self._device = next(networks.parameters()).device
        self._precision = precision
        # Process-wide: each model has a process of its own, or computes alone in this one.
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"

    def __call__(self, windows: Tensor, controls: NDArray[np.floating]) -> Tensor:
        """Audio (B, N) on the CPU for windows (B, N) and controls (B, 7); silence where a window does not count."""
        given = torch.zeros(windows.shape, dtype=torch.float32)
        with torch.inference_mode():
            for alike, places in _alike([Controls.unpacked(numbers) for numbers in controls]):
                parts = windows[places, : alike[0].frames].to(self._device, torch.float32)
                given[places, : alike[0].frames] = self._halved(parts, alike).cpu()
        return given

    def _halved(self, windows: Tensor, controls: Sequence[Controls]) -> Tensor:
        try:
            return self._computed(windows, controls)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(windows) == 1:
                raise
        middle = len(windows) // 2
        return torch.cat(
            [self._halved(windows[:middle], controls[:middle]), self._halved(windows[middle:], controls[middle:])]
        )

    def _computed(self, windows: Tensor, controls: Sequence[Controls]) -> Tensor:
        how = controls[0]
        mel = log_mel(windows)
        noise = Noise([each.key for each in controls], mel.shape[1], windows.device)
        with self._arithmetic():
            condition = self._networks.conditioned(mel, noise()).float()
            latents = sampled(self._networks, condition, noise, how.diffusion_steps, how.guidance_scale)
            drawn = self._networks.decoded(latents).float()
        for row, each in enumerate(controls):
            own = _bands_below(each.cutoff_hertz)
            drawn[row, :, :own] = mel[row, :, :own]
        return self._networks.sounding(drawn)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self._precision != "fp16":
            return nullcontext()
        return torch.autocast(self._device.type, torch.float16)


def _alike(controls: Sequence[Controls]) -> Iterator[tuple[list[Controls], list[int]]]:
    """Windows that can be computed together, with their places."""
    groups: dict[tuple[int, int, float], list[int]] = {}
    for place, each in enumerate(controls):
        groups.setdefault((each.frames, each.diffusion_steps, each.guidance_scale), []).append(place)
    for places in groups.values():
        yield [controls[place] for place in places], places


def log_mel(audio: Tensor) -> Tensor:
    """Natural logarithm of mel magnitudes, (B, N / 480, 256), of audio (B, N) whose N is a multiple of 480."""
    around = (_FFT_FRAMES - _HOP_FRAMES) // 2
    padded = functional.pad(audio[:, None], (around, around), mode="reflect")[:, 0]
    window = torch.hann_window(_FFT_FRAMES, device=audio.device)
    spectrum = torch.stft(padded, _FFT_FRAMES, _HOP_FRAMES, window=window, center=False, return_complex=True)
    mel = torch.from_numpy(_filters()).to(audio.device) @ spectrum.abs()
    return torch.log(mel.clamp(min=_SMALLEST)).transpose(1, 2)


@functools.cache
def _filters() -> NDArray[np.float32]:
    """Slaney's mel filters, (256, 1025)."""
    import librosa

    made: NDArray[np.float32] = librosa.filters.mel(
        sr=SAMPLE_RATE_HERTZ, n_fft=_FFT_FRAMES, n_mels=MEL_BANDS, fmin=_LOWEST_HERTZ, fmax=_HIGHEST_HERTZ
    )
    return made


def _bands_below(cutoff_hertz: float) -> int:
    """How many mel bands end below a frequency."""
    bins = np.arange(_FFT_FRAMES // 2 + 1) * SAMPLE_RATE_HERTZ / _FFT_FRAMES
    ends = np.array([bins[row > 0].max(initial=0.0) for row in _filters()])
    return int(np.sum(np.maximum.accumulate(ends) <= cutoff_hertz))
