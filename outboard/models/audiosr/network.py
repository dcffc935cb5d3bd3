"""The networks of AudioSR on one device: latents of a mel spectrogram, what is noise in latents, audio of a mel.

The classes are upstream's (`outboard.models.audiosr.upstream`) under upstream's names, so that a published checkpoint
fits. It holds more than is needed here: the autoencoder and the vocoder twice, an average of the denoiser's weights
that upstream does not use either, and CLAP, which is never asked. What is loaded is the denoiser, the encoder that
conditions it, and the decoder and vocoder of the first stage: :data:`NEEDED`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from outboard.errors import FailedPrecondition
from outboard.models.audiosr import upstream
from outboard.models.audiosr.selection import NEEDED

LATENT_CHANNELS = 16
LATENT_STRIDE = 8
"""Mel frames, and mel bands, per latent."""
MEL_BANDS = 256
VOCODER_DELAY_FRAMES = 8
"""What the vocoder's output is late: half a step of the layer that upsamples by 5, and 16 times that further up. It is
twice as much too long."""
_LARGEST = 4096


@dataclass(frozen=True)
class Architecture:
    """Sizes of the networks; the rest is fixed. The defaults are the published ones."""

    autoencoder_channels: int = 128
    autoencoder_blocks: int = 2
    autoencoder_multiple: int = 8
    denoiser_channels: int = 128
    denoiser_blocks: int = 2
    denoiser_heads_width: int = 32
    denoiser_multiple: int = 5
    vocoder_channels: int = 1536
    vocoder_kernels: int = 4


FULL = Architecture()
TINY = Architecture(32, 1, 2, 32, 1, 32, 2, 64, 1)
"""The same shape with a few million parameters, for tests."""


class Networks(nn.Module):
    """All that is needed, in evaluation mode, under upstream's names."""

    scale_factor: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        classes = upstream.classes()
        inner = _autoencoder_numbers(architecture)
        denoiser = classes.denoiser(**_denoiser_numbers(architecture))
        for module in denoiser.modules():
            if hasattr(module, "checkpoint"):
                module.checkpoint = False  # saves memory in training; here it would only cost time
        self.model = _holder(diffusion_model=denoiser)
        self.first_stage_model = _holder(
            post_quant_conv=nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1),
            decoder=classes.decoder(**inner),
            vocoder=upstream.vocoder(_vocoder_numbers(architecture)),
        )
        conditioning = _holder(
            encoder=classes.encoder(**inner), quant_conv=nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        )
        self.cond_stage_models = nn.ModuleList([_holder(vae=conditioning)])
        self.register_buffer("scale_factor", torch.tensor(1.0))
        self.eval()
        self.requires_grad_(False)

    def conditioned(self, mel: Tensor, noise: Tensor) -> Tensor:
        """A draw from the latents of log mel spectrograms (B, T, 256): (B, 16, T / 8, 32), as much as `noise` is."""
        vae: Any = self.cond_stage_models[0].vae
        mean, log_variance = vae.quant_conv(vae.encoder(mel[:, None])).chunk(2, dim=1)
        drawn: Tensor = mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise
        return drawn

    def predicted(self, latents: Tensor, step: int, condition: Tensor) -> Tensor:
        """What the denoiser says of noisy latents at a step of 1000, both (B, 16, T / 8, 32)."""
        steps = torch.full((len(latents),), step, dtype=torch.long, device=latents.device)
        joined = torch.cat([latents, condition * self.scale_factor], dim=1)
        model: Any = self.model
        answer: Tensor = model.diffusion_model(joined, steps, context_list=[], y=None, context_attn_mask_list=[])
        return answer

    def decoded(self, latents: Tensor) -> Tensor:
        """Log mel spectrograms (B, T, 256) of latents."""
        stage: Any = self.first_stage_model
        mel: Tensor = stage.decoder(stage.post_quant_conv(latents / self.scale_factor))[:, 0]
        return mel

    def sounding(self, mel: Tensor) -> Tensor:
        """Audio (B, 480 T) of log mel spectrograms, in step with them."""
        stage: Any = self.first_stage_model
        audio: Tensor = stage.vocoder(mel.transpose(1, 2))[:, 0]
        return audio[:, VOCODER_DELAY_FRAMES:-VOCODER_DELAY_FRAMES]


def seeded(architecture: Architecture = TINY, seed: int = 0) -> Networks:
    """Networks with random weights: the same for the same seed, and none of them zero, as new ones partly are."""
    networks = Networks(architecture)
    draw = torch.Generator().manual_seed(seed)
    for value in networks.parameters():
        spread = value[0].numel() ** -0.5 if value.dim() > 1 else 0.1
        value.copy_(torch.randn(value.shape, generator=draw) * spread)
    for module in networks.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.copy_(1.0 + module.weight)
    return networks


def save(networks: Networks, path: Path) -> None:
    """Writes networks as a safetensors file that :func:`load` reads."""
    state = {name: value.contiguous() for name, value in networks.state_dict().items()}
    save_file(state, path, {"architecture": json.dumps(asdict(networks.architecture))})


def load(path: Path, device: str = "cpu") -> Networks:
    """Reads networks.

    Args:
        path: a safetensors file: the published weights, or what :func:`save` wrote.
        device: of torch.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_INVALID, MODEL_WEIGHTS_OF_OTHER_MODEL; ENGINE_UNAVAILABLE without the package.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            architecture = _architecture(path, file.metadata() or {})
            names = [name for name in file.keys() if name.startswith(NEEDED)]  # noqa: SIM118 - no mapping
            state = {name: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise FailedPrecondition(
            f"the weights file {path.name} cannot be read: {error}", reason="MODEL_WEIGHTS_INVALID"
        ) from error
    with torch.device("meta"):
        networks = Networks(architecture)
    try:
        networks.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise _other_model(path, str(error).splitlines()[1].strip()) from error
    return networks.eval().requires_grad_(False)


def _architecture(path: Path, metadata: Mapping[str, str]) -> Architecture:
    if "architecture" not in metadata:
        return FULL
    try:
        told = json.loads(metadata["architecture"])
        chosen = Architecture(**{field.name: int(told[field.name]) for field in fields(Architecture)})
    except (KeyError, ValueError, TypeError) as error:
        raise _other_model(path, "its metadata do not describe the networks") from error
    if not all(1 <= number <= _LARGEST for number in asdict(chosen).values()):
        raise _other_model(path, f"its sizes must lie in 1 to {_LARGEST}")
    return chosen


def _other_model(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the weights file {path.name} is not of AudioSR: {why}", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
    )


def _holder(**modules: nn.Module) -> nn.Module:
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


def _autoencoder_numbers(architecture: Architecture) -> dict[str, Any]:
    return {
        "double_z": True,
        "z_channels": LATENT_CHANNELS,
        "resolution": MEL_BANDS,
        "in_channels": 1,
        "out_ch": 1,
        "ch": architecture.autoencoder_channels,
        "ch_mult": [min(multiple, architecture.autoencoder_multiple) for multiple in (1, 2, 4, 8)],
        "num_res_blocks": architecture.autoencoder_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def _denoiser_numbers(architecture: Architecture) -> dict[str, Any]:
    return {
        "image_size": 64,
        "in_channels": 2 * LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "model_channels": architecture.denoiser_channels,
        "attention_resolutions": [8, 4, 2],
        "num_res_blocks": architecture.denoiser_blocks,
        "channel_mult": [min(multiple, architecture.denoiser_multiple) for multiple in (1, 2, 3, 5)],
        "num_head_channels": architecture.denoiser_heads_width,
        "extra_sa_layer": True,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
    }


def _vocoder_numbers(architecture: Architecture) -> dict[str, Any]:
    kernels = [3, 7, 11, 15][: architecture.vocoder_kernels]
    return {
        "num_mels": MEL_BANDS,
        "upsample_rates": [6, 5, 4, 2, 2],
        "upsample_kernel_sizes": [12, 10, 8, 4, 4],
        "upsample_initial_channel": architecture.vocoder_channels,
        "resblock_kernel_sizes": kernels,
        "resblock_dilation_sizes": [[1, 3, 5]] * len(kernels),
    }
