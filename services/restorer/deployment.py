"""Which engines this process offers, and where their models are computed: AudioSR by a Triton server where one is
named, or on a CUDA device here; everything else here.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace

from outboard.audio.reporting import EngineInfo
from outboard.errors import OutboardError
from outboard.models.audiosr import local, served
from outboard.models.audiosr.door import NAMES, Audio, asked
from outboard.models.deepfilternet3.stream import denoised
from outboard.models.devices import has_cuda
from outboard.models.inference import Arrays
from outboard.models.registry import find, install_hint, missing_packages
from outboard.models.triton import TritonInference
from outboard.models.weights import WeightsFolder
from outboard.settings import Settings
from services.restorer.settings import DEEPFILTERNET3, ENGINES
from services.restorer.superresolution import Drawing, DrawingEngine
from services.restorer.voice import VoiceEngine


class Deployment:
    """The engines of one server.

    Args:
        settings: of the server.

    Raises:
        ResourceExhausted: there is too little shared memory for what the settings ask of it.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: TritonInference | None = None
        if settings.triton.address:
            self._client = served.client(settings.triton)
            atexit.register(self._client.close)

    def engines(self) -> tuple[EngineInfo, ...]:
        """All engines in the order of the automatic chain, as they are here and now. May take seconds."""
        return tuple(self._looked_at(info) for info in ENGINES)

    def voice(self) -> VoiceEngine:
        """The network for voices, whether it can run or not."""
        return VoiceEngine(_installed(_engine(DEEPFILTERNET3)), denoised)

    def drawing(self) -> Mapping[str, DrawingEngine]:
        """The networks that draw upper bands by name, whether they can run or not."""
        infer = self._client.infer if self._client else _infer_here
        return {
            name: DrawingEngine(self._looked_at(_engine(name)), functools.partial(_draw, infer, name)) for name in NAMES
        }

    def _looked_at(self, info: EngineInfo) -> EngineInfo:
        if info.name == DEEPFILTERNET3:
            return _installed(info)
        if info.name not in NAMES:
            return info
        return _served(self._client, info) if self._client else _on_cuda(info)


def _engine(name: str) -> EngineInfo:
    return next(info for info in ENGINES if info.name == name)


def _served(client: TritonInference, info: EngineInfo) -> EngineInfo:
    """What is known of an engine that a model server computes, with the server's weights."""
    view = client.view()
    for problem in (view.problem(info.name), view.weights_problem(info.name)):
        if problem:
            return _unavailable(info, problem.message, problem.reason)
    digest, precision = view.weights_digest(info.name), view.precision(info.name)
    return replace(info, weights_digest=digest, backend="triton", device="triton", precision=precision)


def _on_cuda(info: EngineInfo) -> EngineInfo:
    if problem := local.problem():
        return _unavailable(info, f"{info.name} {problem}", "ENGINE_UNAVAILABLE")
    return replace(_installed(info), device="cuda", precision=local.PRECISION)


def _installed(info: EngineInfo) -> EngineInfo:
    model = find(info.name)
    if missing := missing_packages(model):
        return _unavailable(info, install_hint(missing), "ENGINE_UNAVAILABLE")
    try:
        return replace(info, weights_digest=WeightsFolder(model).digest(), device="cuda" if has_cuda() else "cpu")
    except OutboardError as error:
        return _unavailable(info, error.message, error.reason)


def _unavailable(info: EngineInfo, reason: str, error: str) -> EngineInfo:
    return replace(info, available=False, unavailable_reason=reason, unavailable_error=error)


def _infer_here(model: str, inputs: Arrays) -> Future[Arrays]:
    return local.shared().infer(model, inputs)


def _draw(infer: Callable[[str, Arrays], Future[Arrays]], model: str, window: Audio, drawing: Drawing) -> Future[Audio]:
    return asked(
        infer,
        model,
        window,
        drawing.key,
        drawing.cutoff_hertz,
        drawing.diffusion_steps,
        drawing.guidance_scale,
    )
