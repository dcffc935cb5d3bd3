"""The networks that are behind the door of :mod:`outboard.models.inference`, by the names they have there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FOUR_SOURCES = ("drums", "bass", "other", "vocals")
SIX_SOURCES = (*FOUR_SOURCES, "guitar", "piano")
"""In upstream's order, which is that of every tensor."""


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        name: at the door.
        model: the registry's model whose folder holds the weights.
        signature: of the weights file: ``SIGNATURE.safetensors``.
        sources: what the network can compute.
        kept: what of it is computed; the order of the outputs.
    """

    name: str
    model: str
    signature: str
    sources: tuple[str, ...]
    kept: tuple[str, ...]


_ALL = (
    Variant("htdemucs", "htdemucs", "955717e8", FOUR_SOURCES, FOUR_SOURCES),
    Variant("htdemucs_6s", "htdemucs_6s", "5c90dfd2", SIX_SOURCES, SIX_SOURCES),
    Variant("htdemucs_ft_drums", "htdemucs_ft", "f7e0c4bc", FOUR_SOURCES, ("drums",)),
    Variant("htdemucs_ft_bass", "htdemucs_ft", "d12395a8", FOUR_SOURCES, ("bass",)),
    Variant("htdemucs_ft_other", "htdemucs_ft", "92cfc3b6", FOUR_SOURCES, ("other",)),
    Variant("htdemucs_ft_vocals", "htdemucs_ft", "04573f0d", FOUR_SOURCES, ("vocals",)),
)
VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in _ALL}
"""Source: demucs/remote/htdemucs.yaml, htdemucs_ft.yaml (a unit matrix of weights), htdemucs_6s.yaml."""


def variants_of(model: str) -> tuple[Variant, ...]:
    """The networks of a model of the registry."""
    return tuple(variant for variant in _ALL if variant.model == model)
