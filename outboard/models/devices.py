"""What computes on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path


def has_cuda() -> bool:
    """Whether torch is here and sees a CUDA device."""
    # Looked at first, because loading torch takes seconds and hundreds of megabytes.
    if not Path("/proc/driver/nvidia/version").exists() or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def processor() -> str:
    """The processor's name as its maker gives it, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.machine()


def threads() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
