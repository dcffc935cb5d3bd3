"""The one module that imports the package ``audiosr`` (0.0.7), and of it four classes: the networks.

The package as a whole cannot be imported beside this program's pins: its ``__init__`` imports the whole of it, and that
needs torchaudio, torchvision, transformers, timm, phonemizer and more, at versions of 2023, for parts that super
resolution never runs (CLAP, AudioMAE, text encoders, training). So it is installed without its dependencies, and

- the package stands in ``sys.modules`` as a bare folder while the classes are imported: its ``__init__`` never runs,
- ``PIL``, which ``audiosr.latent_diffusion.util`` imports for plots, is an empty module where it is not installed,

and both are taken away again. What the package does around the networks (preparing audio, sampling, loading) is not
used: :mod:`outboard.models.audiosr.network` has its own, with a seed per window, batches and a loader that loads what
it is told to (upstream's ``build_model(ckpt_path=...)`` ignores its argument).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from outboard.errors import FailedPrecondition
from outboard.models.registry import install_hint

_PACKAGE = "audiosr"
_PLOTTING = ("PIL", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont")
_importing = threading.Lock()


@dataclass(frozen=True)
class Classes:
    """Upstream's networks.

    Attributes:
        denoiser: ``UNetModel``: predicts in the latent space what is noise.
        encoder, decoder: of the autoencoder between mel spectrograms and latents.
        vocoder: HiFi-GAN's generator: mel spectrogram to audio.
    """

    denoiser: Any
    encoder: Any
    decoder: Any
    vocoder: Any


@functools.cache
def classes() -> Classes:
    """The four classes.

    Raises:
        FailedPrecondition: ENGINE_UNAVAILABLE, the package is not installed.
    """
    inner = f"{_PACKAGE}.latent_diffusion.modules.diffusionmodules"
    with _importing, _bare_package():
        unet = importlib.import_module(f"{inner}.openaimodel")
        autoencoder = importlib.import_module(f"{inner}.model")
        hifigan = importlib.import_module(f"{_PACKAGE}.hifigan.models")
    return Classes(unet.UNetModel, autoencoder.Encoder, autoencoder.Decoder, hifigan.Generator)


def vocoder(numbers: Mapping[str, Any]) -> Any:
    """A vocoder as it is when it runs: without weight normalisation."""
    settings = types.SimpleNamespace(**numbers)
    with warnings.catch_warnings():
        # torch has a newer way of normalising weights; here it is only put on to be taken off.
        warnings.simplefilter("ignore", FutureWarning)
        made = classes().vocoder(settings)
        made.remove_weight_norm()
    return made


@contextmanager
def _bare_package() -> Iterator[None]:
    """The package as a folder whose ``__init__`` does not run."""
    whole = sys.modules.pop(_PACKAGE, None)
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise FailedPrecondition(install_hint((_PACKAGE,)), reason="ENGINE_UNAVAILABLE")
    bare = types.ModuleType(_PACKAGE)
    bare.__path__ = list(found.submodule_search_locations)
    standing_in = {_PACKAGE: bare}
    if importlib.util.find_spec("PIL") is None:
        standing_in |= {name: types.ModuleType(name) for name in _PLOTTING}
        for name in _PLOTTING[1:]:
            setattr(standing_in["PIL"], name.rpartition(".")[2], standing_in[name])
    sys.modules.update(standing_in)
    try:
        yield
    finally:
        for name in standing_in:
            del sys.modules[name]
        if whole is not None:
            sys.modules[_PACKAGE] = whole
