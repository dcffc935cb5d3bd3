"""Which engines this process offers, and where their models are computed: by a Triton server where one is named, else
here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from outboard.audio.reporting import EngineInfo
from outboard.errors import OutboardError
from outboard.models.htdemucs.transform import CHANNELS, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import VARIANTS, variants_of
from outboard.models.inference import Inference
from outboard.models.local import LocalInference, arithmetic
from outboard.models.registry import find, install_hint, missing_packages
from outboard.models.triton import TritonInference
from outboard.models.triton_connection import Signature
from outboard.models.weights import WeightsFolder
from outboard.settings import Settings, TritonSettings
from services.separator.engines import Engine
from services.separator.hybrid import Deployment, HybridEngine, Network
from services.separator.separate import ENGINES

_log = logging.getLogger(__name__)

# The preferred first. An engine's integer rises whenever it sounds different on the same weights and arithmetic.
_FAMILY = (
    EngineInfo(
        "htdemucs_ft",
        1,
        description="Hybrid Transformer Demucs, four networks each tuned for one stem: the best, and the slowest.",
        stem_counts=(2, 4),
    ),
    EngineInfo("htdemucs", 1, description="Hybrid Transformer Demucs, one network.", stem_counts=(2, 4)),
    EngineInfo(
        "htdemucs_6s", 1, description="Hybrid Transformer Demucs with guitar and piano.", stem_counts=(2, 4, 5, 6)
    ),
)


def engines(settings: Settings) -> Mapping[str, Engine]:
    """All engines, the preferred first: models whose weights are not here are listed, with what to do about it."""
    family = {info.name: _engine(info, settings.triton) for info in _FAMILY}
    return {**family, **ENGINES}


def _engine(info: EngineInfo, triton: TritonSettings) -> Engine:
    networks = tuple(Network(variant.name, variant.kept) for variant in variants_of(info.name))
    if triton.address:
        return HybridEngine(info, networks, _served, functools.partial(_remote, _shared_client(triton), triton))
    return HybridEngine(info, networks, _installed, _local)


def _installed(info: EngineInfo) -> EngineInfo:
    """What is known of an engine that computes in this process."""
    model = find(info.name)
    if missing := missing_packages(model):
        return _unavailable(info, install_hint(missing), "ENGINE_UNAVAILABLE")
    folder = WeightsFolder(model)
    try:
        digest = folder.digest()
        how = arithmetic("balanced")
    except OutboardError as error:
        return _unavailable(info, error.message, error.reason)
    return replace(info, weights_digest=digest, backend=how.backend, device=how.device, precision=how.precision)


def _served(info: EngineInfo) -> EngineInfo:
    """What is known of an engine that a model server computes; its weights are its own affair unless shared."""
    try:
        digest = WeightsFolder(find(info.name)).digest()
    except OutboardError:
        digest = ""
    return replace(info, weights_digest=digest, backend="triton", device="triton")


def _unavailable(info: EngineInfo, reason: str, error: str) -> EngineInfo:
    return replace(info, available=False, unavailable_reason=reason, unavailable_error=error)


@functools.cache
def _inference(speed: str) -> LocalInference:
    # One of each in the process: all jobs share it.
    return LocalInference(speed)


def _local(speed: str) -> Deployment:
    how = arithmetic(speed)
    # One window is computed while the next one is prepared; more would only wait in memory.
    return Deployment(_inference(speed).infer, how.backend, how.device, how.precision, windows_in_flight=2)


def _shared_client(triton: TritonSettings) -> Callable[[], Inference]:
    @functools.cache
    def client() -> Inference:
        signatures = {
            variant.name: Signature(
                {"mix": (CHANNELS, SEGMENT_FRAMES)}, {"stems": (len(variant.kept), CHANNELS, SEGMENT_FRAMES)}
            )
            for variant in VARIANTS.values()
        }
        return TritonInference(triton, signatures)

    return client


def _remote(client: Callable[[], Inference], triton: TritonSettings, speed: str) -> Deployment:
    # The server's configuration decides about the arithmetic. Windows in flight are what its batches are made of.
    return Deployment(client().infer, "triton", "triton", "", windows_in_flight=max(2, triton.in_flight // 2))
