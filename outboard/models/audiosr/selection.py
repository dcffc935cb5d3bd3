"""Which arrays of a published AudioSR checkpoint are needed: by their names, without torch."""

from __future__ import annotations

NEEDED = (
    "model.diffusion_model.",
    "first_stage_model.post_quant_conv.",
    "first_stage_model.decoder.",
    "first_stage_model.vocoder.",
    "cond_stage_models.0.vae.encoder.",
    "cond_stage_models.0.vae.quant_conv.",
    "scale_factor",
)
