"""DeepFilterNet3 as its authors' package runs it: what ours is held against, in a test and in a benchmark.

The package (deepfilternet 0.5.6, installed without what it asks for) imports torchaudio for reading and writing files
only, and no build of that fits here: modules stand in for it that have the imported names and nothing else.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

_STANDING_IN = (
    "torchaudio",
    "torchaudio.backend",
    "torchaudio.backend.common",
    "torchaudio.compliance",
    "torchaudio.compliance.kaldi",
)


def enhancer(folder: Path) -> Callable[[np.ndarray, float | None], np.ndarray]:
    """Upstream's ``enhance`` on the weights of a folder: (channels, frames) at 48 kHz and a limit in dB or None."""
    for name in _STANDING_IN:
        module = types.ModuleType(name)
        module.__dict__.update(__path__=[], AudioMetaData=object, resample_waveform=None)
        sys.modules[name] = module
    try:
        upstream = importlib.import_module("df.enhance")
    finally:
        for name in _STANDING_IN:
            del sys.modules[name]
    import torch

    model, state, _ = upstream.init_df(str(folder), log_file=None, log_level="ERROR")

    def enhance(audio: np.ndarray, limit_db: float | None = None) -> np.ndarray:
        answer: np.ndarray = upstream.enhance(model, state, torch.from_numpy(audio), atten_lim_db=limit_db).numpy()
        return answer

    return enhance
