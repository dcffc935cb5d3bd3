"""The network itself, which is upstream's: the one module that imports ``demucs``.

``Core`` is ``HTDemucs.forward`` (demucs 4.1) without STFT and iSTFT, which makes it exportable, and optionally cut down
to some of its sources: the networks of ``htdemucs_ft`` serve one source each, so the last layers compute no other.

Weights lie in safetensors files with the class and its arguments in the metadata, in the format that
``demucs.hf.load_safetensors_model`` reads too. The arguments come from a file, so they are checked before anything is
built of them.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from demucs import transformer
from demucs.htdemucs import HTDemucs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from outboard.errors import FailedPrecondition
from outboard.models.htdemucs import transform

CLASS_NAME = "demucs.htdemucs.HTDemucs"
FULL: Mapping[str, Any] = {
    "channels": 48,
    "bottom_channels": 512,
    "dconv_mode": 3,
    "t_layers": 5,
    "t_dropout": 0.02,
    "multi_freqs": [],
    "t_sparse_attn_window": 400,
    "segment": Fraction(39, 5),
}
"""The published architecture, over the class's defaults (41,984,456 parameters with four sources)."""
TINY: Mapping[str, Any] = {**FULL, "channels": 8, "bottom_channels": 32, "t_layers": 1, "t_heads": 4}
"""The same shape with 314 thousand parameters, for tests."""
# What the forward pass here takes for granted.
_REQUIRED: Mapping[str, Any] = {
    "audio_channels": transform.CHANNELS,
    "samplerate": transform.SAMPLE_RATE_HERTZ,
    "nfft": transform.WINDOW_FRAMES,
    "cac": True,
    "depth": 4,
    "use_train_segment": True,
}
_LARGEST_CHANNELS = 512
_LARGEST_LAYERS = 16


class Core(torch.nn.Module):
    """Normalisation, both encoders, transformer, both decoders.

    Args:
        network: in evaluation mode.
        kept: the sources to compute, of the network's; all unless given.
    """

    def __init__(self, network: HTDemucs, kept: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.kept = tuple(kept) or tuple(network.sources)
        indices = [network.sources.index(name) for name in self.kept]
        _keep_sources(network.decoder[-1].conv_tr, indices, len(network.sources))
        _keep_sources(network.tdecoder[-1].conv_tr, indices, len(network.sources))

    def forward(self, mix: torch.Tensor, spectrogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes float32 [B, 2, N] and [B, 4, F, T]; returns [B, S, 4, F, T] and [B, S, 2, N]."""
        network = self.network
        mean, deviation = _moments(spectrogram)
        mean_t, deviation_t = _moments(mix)
        x = (spectrogram - mean) / (1e-5 + deviation)
        xt = (mix - mean_t) / (1e-5 + deviation_t)
        skips, skips_t, lengths, lengths_t = [], [], [], []
        for index, (encode, encode_t) in enumerate(zip(network.encoder, network.tencoder, strict=True)):
            lengths.append(x.shape[-1])
            lengths_t.append(xt.shape[-1])
            xt = self.encode(encode_t, xt)
            x = self.encode(encode, x)
            if index == 0 and network.freq_emb is not None:
                rows = torch.arange(x.shape[-2], device=x.device)
                x = x + network.freq_emb_scale * network.freq_emb(rows).t()[None, :, :, None].expand_as(x)
            skips.append(x)
            skips_t.append(xt)
        x, xt = self._transformed(x, xt)
        for decode, decode_t in zip(network.decoder, network.tdecoder, strict=True):
            x = self.decode(decode, x, skips.pop(), lengths.pop())
            xt = self.decode(decode_t, xt, skips_t.pop(), lengths_t.pop())
        x = x.view(x.shape[0], len(self.kept), -1, *spectrogram.shape[-2:])
        xt = xt.view(xt.shape[0], len(self.kept), -1, mix.shape[-1])
        return x * deviation[:, None] + mean[:, None], xt * deviation_t[:, None] + mean_t[:, None]

    def encode(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """One of upstream's encoder layers."""
        encoded: torch.Tensor = layer(x)
        return encoded

    def decode(self, layer: Any, x: torch.Tensor, skip: torch.Tensor, length: int) -> torch.Tensor:
        """One of upstream's decoder layers, to so many steps of time."""
        decoded: torch.Tensor = layer(x, skip, length)[0]
        return decoded

    def _transformed(self, x: torch.Tensor, xt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.network
        if not network.crosstransformer:
            return x, xt
        if network.bottom_channels:
            x = network.channel_upsampler(x.flatten(2)).unflatten(2, x.shape[2:])
            xt = network.channel_upsampler_t(xt)
        x, xt = network.crosstransformer(x, xt)
        if network.bottom_channels:
            x = network.channel_downsampler(x.flatten(2)).unflatten(2, x.shape[2:])
            xt = network.channel_downsampler_t(xt)
        return x, xt


class Windowed(torch.nn.Module):
    """Core and transforms together: mix [B, 2, N] to stems [B, S, 2, N], on whatever device the mix is."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """Takes and returns float32."""
        stems: torch.Tensor = transform.stems(*self.core(mix, transform.spectrogram(mix)))
        return stems


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    axes = tuple(range(1, x.dim()))
    return x.mean(dim=axes, keepdim=True), x.std(dim=axes, keepdim=True)


def _keep_sources(layer: Any, indices: Sequence[int], sources: int) -> None:
    """Cuts a last layer's output channels, which are grouped by source, down to some sources."""
    width = layer.out_channels // sources
    rows = [index * width + i for index in indices for i in range(width)]
    layer.weight = torch.nn.Parameter(layer.weight[:, rows].detach().clone(), requires_grad=False)
    if layer.bias is not None:
        layer.bias = torch.nn.Parameter(layer.bias[rows].detach().clone(), requires_grad=False)
    layer.out_channels = len(rows)


def seeded(sources: Sequence[str], seed: int = 0, architecture: Mapping[str, Any] = FULL) -> HTDemucs:
    """A network with random weights: the same for the same seed, without a trace in torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: HTDemucs = HTDemucs(list(sources), **architecture)
    network.eval()
    return network


def save(network: HTDemucs, path: Path) -> None:
    """Writes a network as a safetensors file that :func:`load`, and upstream, read."""
    remembered: Any = network._init_args_kwargs
    arguments, keywords = remembered
    metadata = {"klass": CLASS_NAME, "args": _to_json(arguments), "kwargs": _to_json(keywords)}
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path, metadata)


def load(path: Path, sources: Sequence[str]) -> HTDemucs:
    """Reads a network.

    Args:
        path: a safetensors file.
        sources: those that the network must have, in order.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_TRUNCATED, MODEL_WEIGHTS_INVALID, MODEL_WEIGHTS_OF_OTHER_MODEL.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise FailedPrecondition(
            f"the weights file {path.name} cannot be read: {error}", reason="MODEL_WEIGHTS_INVALID"
        ) from error
    try:
        keywords = _from_json(metadata["kwargs"])
        arguments = _from_json(metadata["args"])
    except (KeyError, ValueError, TypeError) as error:
        raise _other_model(path, "its metadata do not describe a network") from error
    network = _built(path, metadata.get("klass", ""), arguments, keywords, tuple(sources))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _other_model(path, f"its tensors do not fit the network: {str(error).splitlines()[1].strip()}") from error
    network.eval()
    return network


def _built(path: Path, klass: str, arguments: Any, keywords: Any, sources: tuple[str, ...]) -> HTDemucs:
    if klass != CLASS_NAME or not isinstance(keywords, dict) or not isinstance(arguments, list) or len(arguments) > 1:
        raise _other_model(path, f"it holds a {klass or 'network of no known class'}, not a {CLASS_NAME}")
    known = inspect.signature(HTDemucs).parameters
    chosen = {name: value for name, value in keywords.items() if name in known}
    if arguments:
        chosen["sources"] = arguments[0]
    for name, required in _REQUIRED.items():
        given = chosen.get(name, known[name].default)
        if given != required:
            raise _other_model(path, f"its {name} is {given!r}, not {required!r}")
    if tuple(chosen.get("sources", ())) != sources:
        found = ", ".join(map(str, chosen.get("sources") or ())) or "nothing"
        raise _other_model(path, f"it separates {found}, not {', '.join(sources)}")
    for name, largest in (("channels", _LARGEST_CHANNELS), ("bottom_channels", 4096), ("t_layers", _LARGEST_LAYERS)):
        if not 0 <= chosen.get(name, 0) <= largest:
            raise _other_model(path, f"its {name} is {chosen[name]}, more than {largest}")
    if chosen.get("multi_freqs") or chosen.get("t_sparse_self_attn") or chosen.get("t_sparse_cross_attn"):
        raise _other_model(path, "it splits frequencies or attends sparsely, which no published network does")
    network: HTDemucs = HTDemucs(**chosen)
    return network


def _other_model(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the weights file {path.name} is of another model: {why}", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
    )


@functools.cache
def keep_positions() -> None:
    """Has upstream's transformers compute a position embedding once per shape and device, in this whole process.

    They make it anew on the CPU in each pass otherwise: time lost on a GPU, and a copy that no CUDA graph can hold.
    """
    transformer.create_2d_sin_embedding = functools.cache(transformer.create_2d_sin_embedding)


def segment_frames(network: HTDemucs) -> int:
    """N: frames of one window."""
    return int(network.segment * network.samplerate)


def _to_json(value: Any) -> str:
    return json.dumps(value, default=_encoded_fraction)


def _encoded_fraction(value: Any) -> Any:
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    raise TypeError(f"{type(value).__name__} has no place in a network's arguments")


def _from_json(text: str) -> Any:
    def decoded(item: dict[str, Any]) -> Any:
        return Fraction(item["numerator"], item["denominator"]) if item.get("_type") == "fraction" else item

    return json.loads(text, object_hook=decoded)
