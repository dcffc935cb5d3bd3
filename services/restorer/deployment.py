"""Which engines this process offers, and what computes them."""

from __future__ import annotations

from dataclasses import replace

from outboard.audio.reporting import EngineInfo
from outboard.errors import OutboardError
from outboard.models.deepfilternet3.stream import denoised
from outboard.models.local import arithmetic
from outboard.models.registry import find, install_hint, missing_packages
from outboard.models.weights import WeightsFolder
from services.restorer.settings import DEEPFILTERNET3, ENGINES
from services.restorer.voice import VoiceEngine


def engines() -> tuple[EngineInfo, ...]:
    """All engines in the order of the automatic chain, as they are here and now."""
    return tuple(_looked_at(info) if info.name == DEEPFILTERNET3 else info for info in ENGINES)


def voice_engine() -> VoiceEngine:
    """The network for voices, whether it can run or not."""
    return VoiceEngine(next(info for info in engines() if info.name == DEEPFILTERNET3), denoised)


def _looked_at(info: EngineInfo) -> EngineInfo:
    model = find(info.name)
    if missing := missing_packages(model):
        return _unavailable(info, install_hint(missing), "ENGINE_UNAVAILABLE")
    try:
        return replace(info, weights_digest=WeightsFolder(model).digest(), device=arithmetic("exact").device)
    except OutboardError as error:
        return _unavailable(info, error.message, error.reason)


def _unavailable(info: EngineInfo, reason: str, error: str) -> EngineInfo:
    return replace(info, available=False, unavailable_reason=reason, unavailable_error=error)
