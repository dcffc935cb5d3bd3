"""A separation network on one device by torch, as Triton's ``model.py`` runs it: fixed batch sizes, one precision.

A network that is compiled or captured knows certain batch sizes only, and convolution algorithms, hence the last bits
of the result, depend on the batch size. So a batch is filled up with silence to the next of a few sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from outboard.models.htdemucs import transform

Precision = Literal["fp32", "tf32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16")
Core = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
# Runs before a capture: cuDNN chooses its algorithms and allocates its workspaces in the first ones.
_RUNS_BEFORE_CAPTURE = 3


@dataclass(frozen=True)
class _Captured:
    """The core for one batch size as a CUDA graph, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, torch.Tensor]
    outputs: tuple[torch.Tensor, torch.Tensor]


class Windows:
    """Computes windows: mix (B, 2, N) in, stems (B, S, 2, N) out.

    Args:
        core: the network between the transforms, in float32 and on the device: mix and spectrogram in, the spectrogram
            and waveform branches out.
        device: "cpu", "cuda:0" ...
        precision: of the core; "tf32" and "fp16" are for a GPU. The transforms are always float32.
        batch_sizes: in ascending order; the last is the largest batch.
        cuda_graphs: capture the core for each batch size at its first use.
    """

    def __init__(
        self, core: Core, device: str, precision: Precision, batch_sizes: Sequence[int], *, cuda_graphs: bool = False
    ) -> None:
        self._core = core
        self._device = torch.device(device)
        self._precision = precision
        self._batch_sizes = tuple(batch_sizes)
        self._cuda_graphs = cuda_graphs
        self._captured: dict[int, _Captured] = {}
        # Process-wide, and each model has a process of its own.
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"

    def __call__(self, mix: torch.Tensor) -> torch.Tensor:
        """Stems on the CPU, for windows on any device."""
        count = len(mix)
        size = next(size for size in self._batch_sizes if size >= count)
        with torch.inference_mode():
            full = torch.zeros((size, *mix.shape[1:]), dtype=torch.float32, device=self._device)
            full[:count] = mix.to(self._device)
            branches = self._run(full, transform.spectrogram(full))
            stems: torch.Tensor = transform.stems(*branches)
            return stems[:count].to("cpu")

    def _run(self, mix: torch.Tensor, spectrogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._cuda_graphs:
            return self._compute(mix, spectrogram)
        if len(mix) not in self._captured:
            self._captured[len(mix)] = self._capture(mix, spectrogram)
        captured = self._captured[len(mix)]
        captured.inputs[0].copy_(mix)
        captured.inputs[1].copy_(spectrogram)
        captured.graph.replay()
        return captured.outputs

    def _compute(self, mix: torch.Tensor, spectrogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self._arithmetic():
            frequency, time = self._core(mix, spectrogram)
        return frequency.float(), time.float()

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self._precision != "fp16":
            return nullcontext()
        # The cache of converted weights would be freed after a capture that refers to it.
        return torch.autocast(self._device.type, torch.float16, cache_enabled=not self._cuda_graphs)

    def _capture(self, mix: torch.Tensor, spectrogram: torch.Tensor) -> _Captured:
        inputs = mix.clone(), spectrogram.clone()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_RUNS_BEFORE_CAPTURE):
                self._compute(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._compute(*inputs)
        return _Captured(graph, inputs, outputs)
