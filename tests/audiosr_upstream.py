"""AudioSR as its authors' package runs it, on given weights: what ours is held against.

The package's own pins cannot be met, so what it imports besides is stood in for while it is imported: torchaudio and
torchvision (file I/O and plots), transformers, CLAP, AudioMAE and the phoneme encoder (conditions that super resolution
does not use; CLAP is built by the constructor and never asked). The diffusion, its sampler, autoencoder and vocoder are
upstream's, untouched.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from outboard.models.audiosr import network

_FOLDERS = ("audiosr", "audiosr.utilities")
_STANDING_IN = (
    "torchaudio",
    "torchvision",
    "torchvision.utils",
    "transformers",
    "progressbar",
    "PIL",
    "audiosr.clap",
    "audiosr.clap.open_clip",
    "audiosr.clap.training",
    "audiosr.clap.training.data",
    "audiosr.latent_diffusion.modules.audiomae",
    "audiosr.latent_diffusion.modules.audiomae.AudioMAE",
    "audiosr.latent_diffusion.modules.phoneme_encoder",
    "audiosr.latent_diffusion.modules.phoneme_encoder.encoder",
    "audiosr.utilities.tools",
)


class _StandIn(types.ModuleType):
    """A module that has everything, and none of it can be used."""

    __path__: list[str] = []  # noqa: RUF012 - as a package has it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _importable() -> Iterator[None]:
    before = dict(sys.modules)
    spec = importlib.util.find_spec("audiosr")
    assert spec is not None
    assert spec.submodule_search_locations
    [root] = spec.submodule_search_locations
    for name in _FOLDERS:
        bare = types.ModuleType(name)
        bare.__path__ = [root + name.removeprefix("audiosr").replace(".", "/")]
        sys.modules[name] = bare
    sys.modules |= {name: _StandIn(name) for name in _STANDING_IN}
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith(("audiosr", *_STANDING_IN)):
                del sys.modules[name]
        sys.modules |= {name: module for name, module in before.items() if name.startswith("audiosr")}


class Upstream:
    """Upstream's ``LatentDiffusion`` with the weights of ours.

    Args:
        ours: networks of small sizes.
        patch: of the running test.
    """

    def __init__(self, ours: network.Networks, patch: pytest.MonkeyPatch) -> None:
        architecture = ours.architecture
        with _importable():
            vocoders = importlib.import_module("audiosr.utilities.model")
            numbers = network._vocoder_numbers(architecture)
            patch.setattr(vocoders, "get_vocoder_config_48k", lambda: numbers)
            encoders = importlib.import_module("audiosr.latent_diffusion.modules.encoders.modules")
            patch.setattr(encoders, "CLAPAudioEmbeddingClassifierFreev2", lambda **_: torch.nn.Module(), raising=True)
            diffusion = importlib.import_module("audiosr.latent_diffusion.models.ddpm")
            self.features = importlib.import_module("audiosr.utils")
            self.model = diffusion.LatentDiffusion(**_numbers(architecture))
        missing, unexpected = self.model.load_state_dict(ours.state_dict(), strict=False)
        assert not unexpected
        # What both stages have is the same network; ours keeps one copy.
        stage, conditioning = self.model.first_stage_model, self.model.cond_stage_models[0].vae
        stage.encoder.load_state_dict(conditioning.encoder.state_dict())
        stage.quant_conv.load_state_dict(conditioning.quant_conv.state_dict())
        assert not [name for name in missing if name.startswith("model.diffusion_model")]
        self.model.eval()
        self._patch = patch

    def mel(self, audio: torch.Tensor) -> torch.Tensor:
        """Its log mel spectrogram (T, 256) of (N,)."""
        spectrogram, _ = self.features.mel_spectrogram_train(audio[None])
        return spectrogram.T

    def decoded(
        self, mel: torch.Tensor, noise: Callable[[], torch.Tensor], steps: int, guidance_scale: float
    ) -> torch.Tensor:
        """The mel spectrogram (T, 256) that its sampler and decoder make of one (T, 256), under given noise."""
        seen: dict[str, torch.Tensor] = {}
        decode = self.model.decode_first_stage
        draws = iter([torch.zeros(1)])  # the first draw is for latents that it throws away

        def drawn(*shape: Any, **_: Any) -> torch.Tensor:
            for first in draws:
                return first.expand(*shape) if len(shape) > 1 else first.expand(shape[0])
            return noise()

        def decoded(latents: torch.Tensor) -> torch.Tensor:
            seen["mel"] = decode(latents)
            return seen["mel"].clone()

        with self._patch.context() as patch:
            patch.setattr(torch, "randn", drawn)
            patch.setattr(self.model, "decode_first_stage", decoded)
            patch.setattr(self.model, "postprocessing", lambda out, _: out)
            waveform = torch.zeros(1, 1, mel.shape[0] * 480)
            batch = {"log_mel_spec": mel[None], "lowpass_mel": mel[None], "waveform": waveform, "stft": mel[None]}
            batch |= {"waveform_lowpass": waveform, "fname": [""], "label_vector": mel[None]}
            self.model.generate_batch(batch, ddim_steps=steps, unconditional_guidance_scale=guidance_scale)
        return seen["mel"][0, 0]


def _numbers(architecture: network.Architecture) -> dict[str, Any]:
    autoencoder = {
        "target": "audiosr.latent_encoder.autoencoder.AutoencoderKL",
        "params": {
            "image_key": "fbank",
            "embed_dim": network.LATENT_CHANNELS,
            "sampling_rate": 48_000,
            "ddconfig": {**network._autoencoder_numbers(architecture), "mel_bins": network.MEL_BANDS},
        },
    }
    return {
        "device": torch.device("cpu"),
        "first_stage_config": autoencoder,
        "cond_stage_config": {
            "concat_lowpass_cond": {
                "cond_stage_key": "lowpass_mel",
                "conditioning_key": "concat",
                "target": "audiosr.latent_diffusion.modules.encoders.modules.VAEFeatureExtract",
                "params": {"first_stage_config": autoencoder},
            }
        },
        "unet_config": {
            "target": "audiosr.latent_diffusion.modules.diffusionmodules.openaimodel.UNetModel",
            "params": network._denoiser_numbers(architecture),
        },
        "sampling_rate": 48_000,
        "beta_schedule": "cosine",
        "timesteps": 1000,
        "parameterization": "v",
        "first_stage_key": "fbank",
        "latent_t_size": 128,
        "latent_f_size": 32,
        "channels": network.LATENT_CHANNELS,
        "scale_by_std": True,
        "use_ema": False,
    }
