"""Which engines this process offers, and where their models are computed: by a Triton server where one is named, else
here.
"""

from __future__ import annotations

import atexit
import functools
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace

from outboard.audio.reporting import EngineInfo
from outboard.errors import OutboardError
from outboard.models.htdemucs.backends import Arithmetic
from outboard.models.htdemucs.choice import arithmetic
from outboard.models.htdemucs.variants import variants_of
from outboard.models.local import LocalInference
from outboard.models.registry import find, install_hint, missing_packages
from outboard.models.triton import SEPARATION, TritonInference
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
        2,
        description="Hybrid Transformer Demucs, four networks each tuned for one stem: the best, and the slowest.",
        stem_counts=(2, 4),
    ),
    EngineInfo("htdemucs", 2, description="Hybrid Transformer Demucs, one network.", stem_counts=(2, 4)),
    EngineInfo(
        "htdemucs_6s", 2, description="Hybrid Transformer Demucs with guitar and piano.", stem_counts=(2, 4, 5, 6)
    ),
)


def engines(settings: Settings) -> Mapping[str, Engine]:
    """All engines, the preferred first: models that cannot be had now are listed, with what to do about it.

    Raises:
        ResourceExhausted: there is too little shared memory for what the settings ask of it.
    """
    client = _client(settings.triton) if settings.triton.address else None
    family = {info.name: _engine(info, settings.triton, client) for info in _FAMILY}
    return {**family, **ENGINES}


def _engine(info: EngineInfo, triton: TritonSettings, client: TritonInference | None) -> Engine:
    networks = tuple(Network(variant.name, variant.kept) for variant in variants_of(info.name))
    if client is None:
        return HybridEngine(info, networks, _installed, functools.partial(_local, info.name))
    return HybridEngine(info, networks, functools.partial(_served, client), functools.partial(_remote, client, triton))


def _client(triton: TritonSettings) -> TritonInference:
    client = TritonInference(triton, SEPARATION)
    atexit.register(client.close)
    threading.Thread(target=_prepare, args=(client,), name="triton-prepare", daemon=True).start()
    return client


def _prepare(client: TritonInference) -> None:
    """Has the server load the first engine of the family that it can: no song has to wait for it."""
    for info in _FAMILY:
        if _served(client, info).available:
            with suppress(CancelledError):
                _load(client, info)
            return


def _load(client: TritonInference, info: EngineInfo) -> None:
    try:
        for variant in variants_of(info.name):
            client.check(variant.name)
    except OutboardError as error:
        _log.warning("the model server could not load %s: %s", info.name, error.message)


def _installed(info: EngineInfo) -> EngineInfo:
    """What is known of an engine that computes in this process."""
    model = find(info.name)
    if missing := missing_packages(model):
        return _unavailable(info, install_hint(missing), "ENGINE_UNAVAILABLE")
    folder = WeightsFolder(model)
    try:
        digest = folder.digest()
        balanced, fast = arithmetic(info.name, "balanced"), arithmetic(info.name, "fast")
    except OutboardError as error:
        return _unavailable(info, error.message, error.reason)
    return replace(
        info,
        weights_digest=digest,
        backend=_told(balanced.backend, fast.backend),
        device=balanced.device,
        precision=_told(balanced.precision, fast.precision),
    )


def _told(balanced: str, fast: str) -> str:
    """Both speeds in one word: results are found by it, and must not be those of a backend that was replaced."""
    return balanced if fast == balanced else f"{balanced}, {fast} when fast"


def _served(client: TritonInference, info: EngineInfo) -> EngineInfo:
    """What is known of an engine that a model server computes, with the server's weights."""
    view = client.view()
    problems = [view.problem(variant.name) for variant in variants_of(info.name)]
    for problem in (*problems, view.weights_problem(info.name)):
        if problem:
            return _unavailable(info, problem.message, problem.reason)
    digest, precision = view.weights_digest(info.name), view.precision(info.name)
    return replace(info, weights_digest=digest, backend="triton", device="triton", precision=precision)


def _unavailable(info: EngineInfo, reason: str, error: str) -> EngineInfo:
    return replace(info, available=False, unavailable_reason=reason, unavailable_error=error)


@functools.cache
def _inference(how: Arithmetic) -> LocalInference:
    # One of each in the process: all jobs share it.
    return LocalInference(how)


def _local(model: str, speed: str) -> Deployment:
    how = arithmetic(model, speed)
    # One window is computed while the next one is prepared; more would only wait in memory.
    return Deployment(_inference(how).infer, how.backend, how.device, how.precision, windows_in_flight=2)


def _remote(client: TritonInference, triton: TritonSettings, speed: str) -> Deployment:
    # The server's configuration decides about the arithmetic. Windows in flight are what its batches are made of.
    return Deployment(client.infer, "triton", "triton", "", windows_in_flight=max(2, triton.in_flight // 2))
