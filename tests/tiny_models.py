"""Networks with seeded random weights, in the layout of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from outboard.models.htdemucs import network
from outboard.models.htdemucs.variants import VARIANTS

SHORT: Mapping[str, Any] = {**network.TINY, "segment": Fraction(1)}
"""Tiny, with windows of one second."""


def write_models(root: Path, names: tuple[str, ...], architecture: Mapping[str, Any] = network.TINY) -> None:
    """Writes the weights of some networks, by their names at the door, as a hand-copied folder has them."""
    for name in names:
        variant = VARIANTS[name]
        path = root / variant.model / f"{variant.signature}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        network.save(network.seeded(variant.sources, int(variant.signature[:6], 16), architecture), path)


def snr_db(ours: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference over that of the difference."""
    reference = reference.astype(np.float64)
    return float(10 * np.log10(np.sum(reference**2) / max(np.sum((ours - reference) ** 2), 1e-300)))
