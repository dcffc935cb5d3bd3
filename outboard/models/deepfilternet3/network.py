"""The network of DeepFilterNet3 with its state as an argument: encoder, band gains, filters over five hops.

Upstream's module forgets everything between two calls; here convolutions keep their last inputs and recurrent layers
their last outputs, so that a song may pass in blocks. Weights and arithmetic are upstream's (`df.deepfilternet3.DfNet`
with the published ``config.ini``), without its package. The network looks two hops ahead, which `Memory` spans.

Tensors are (channels, features, hops, bands) with the features next to each other in memory. What follows on each other
linearly is multiplied together beforehand: normalisations into convolutions, the mixing of features into convolutions
of few groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from outboard.errors import FailedPrecondition
from outboard.models.deepfilternet3.features import BANDS, BINS, FILTERED_BINS, LOOKAHEAD_HOPS, Features, Spectrum
from outboard.models.deepfilternet3.recurrent import recur

_FILTER_HOPS = 5
_FEATURES = 64
_INPUTS = {"enc.erb_conv0": 1, "enc.df_conv0": 2}  # of the convolutions that do not take all features
_WIDTH = 256
_EPSILON = 1e-5  # of every batch normalisation
_RECURRENT = ("enc.emb_gru", "erb_dec.emb_gru", "df_dec.df_gru")


@dataclass(frozen=True)
class _Convolution:
    """A convolution over bands and past hops, the mixing of its features, normalised.

    Attributes:
        weight: (features, features per group, hops, bands).
        mixing: (features, features); None: there is none, or it is in `weight`.
        offset: (features,), added last.
    """

    weight: Tensor
    mixing: Tensor | None
    offset: Tensor


@dataclass
class Memory:
    """What one stream carries from block to block; made by :meth:`Network.start`."""

    past: dict[str, Tensor]
    spectrum: Tensor
    skip_hops: int


class Network:
    """The network on one device.

    Args:
        state: arrays by upstream's names.
        device: of torch.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_OF_OTHER_MODEL.
    """

    def __init__(self, state: Mapping[str, NDArray[np.float32]], device: str = "cpu") -> None:
        self.device = device
        try:
            self._weights = {name: torch.from_numpy(np.array(value)).to(device) for name, value in state.items()}
            ends = ".running_mean"
            normalised = [key.removesuffix(ends).rpartition(".") for key in state if key.endswith(ends)]
            self._convolutions = {name: self._convolution(name, int(last)) for name, _, last in normalised}
            self._layers = {name: self._recurrent_layer(f"{name}.gru") for name in _RECURRENT}
            self._across = {
                name: [weights[1].T.contiguous().cpu().numpy() for weights in layer.all_weights]
                for name, layer in self._layers.items()
            }
            with torch.inference_mode():
                self._trial()
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise FailedPrecondition(
                f"the weights are not those of DeepFilterNet3: {error}", reason="MODEL_WEIGHTS_OF_OTHER_MODEL"
            ) from error

    def start(self, channels: int) -> Memory:
        """The state before the first block."""
        spectrum = torch.zeros(channels, LOOKAHEAD_HOPS, BINS, dtype=torch.complex64, device=self.device)
        return Memory({}, spectrum, LOOKAHEAD_HOPS)

    def enhanced(self, features: Features, memory: Memory) -> tuple[Spectrum, Spectrum]:
        """The next hops, two hops late: the spectrum as it came and the enhanced one, (channels, hops, 481).

        The first block gives two hops fewer than it takes; two silent hops at the end give the last.
        """
        spectrum, bands, low = (torch.from_numpy(part).to(self.device) for part in features)
        with torch.inference_mode():
            if memory.skip_hops:
                # Upstream leaves the first features out, instead of delaying what they are applied to.
                bands, low = bands[:, memory.skip_hops :], low[:, memory.skip_hops :]
                memory.skip_hops = 0
            gains, filters = self._predicted(bands[:, None], torch.view_as_real(low).permute(0, 3, 1, 2), memory.past)
            joined = torch.cat([memory.spectrum, spectrum], dim=1)
            memory.spectrum = joined[:, -(_FILTER_HOPS - 1) :]
            around = joined.unfold(1, _FILTER_HOPS, 1)
            raw = around[..., _FILTER_HOPS - 1 - LOOKAHEAD_HOPS]
            result = raw * (gains @ self._weights["mask.erb_inv_fb"])
            result[..., :FILTERED_BINS] = (around[:, :, :FILTERED_BINS] * filters).sum(-1)
        return raw.cpu().numpy(), result.cpu().numpy()

    def _trial(self) -> None:
        silence = torch.zeros(1, 1, 1, BANDS, device=self.device)
        self._predicted(silence, torch.zeros(1, 2, 1, FILTERED_BINS, device=self.device), {})

    def _predicted(self, bands: Tensor, low: Tensor, past: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Gains (channels, hops, 32) and complex filters (channels, hops, 96, 5)."""
        e0 = self._conv("enc.erb_conv0", bands, past)
        e1 = self._conv("enc.erb_conv1", e0, past, stride=2)
        e2 = self._conv("enc.erb_conv2", e1, past, stride=2)
        e3 = self._conv("enc.erb_conv3", e2, past)
        c0 = self._conv("enc.df_conv0", low, past)
        c1 = self._conv("enc.df_conv1", c0, past, stride=2)
        low_embedding = self._grouped("enc.df_fc_emb.0", c1.permute(0, 2, 3, 1).flatten(2)).relu_()
        embedding = self._recurrent("enc.emb_gru", e3.permute(0, 2, 3, 1).flatten(2) + low_embedding, past)
        gains = self._gains(embedding, (e0, e1, e2, e3), past)
        return gains, self._filters(embedding, c0, past)

    def _gains(self, embedding: Tensor, stages: tuple[Tensor, ...], past: dict[str, Tensor]) -> Tensor:
        e0, e1, e2, e3 = stages
        decoded = self._recurrent("erb_dec.emb_gru", embedding, past)
        x = decoded.reshape(*decoded.shape[:2], e3.shape[3], -1).permute(0, 3, 1, 2)
        x = self._conv("erb_dec.convt3", self._conv("erb_dec.conv3p", e3, past) + x, past)
        x = self._transposed("erb_dec.convt2", self._conv("erb_dec.conv2p", e2, past) + x)
        x = self._transposed("erb_dec.convt1", self._conv("erb_dec.conv1p", e1, past) + x)
        x = self._conv("erb_dec.conv0_out", self._conv("erb_dec.conv0p", e0, past) + x, past, last=True)
        return x.sigmoid()[:, 0]

    def _filters(self, embedding: Tensor, c0: Tensor, past: dict[str, Tensor]) -> Tensor:
        decoded = self._recurrent("df_dec.df_gru", embedding, past) + self._grouped("df_dec.df_skip", embedding)
        pathway = self._conv("df_dec.df_convp", c0, past).permute(0, 2, 3, 1)
        parts = self._grouped("df_dec.df_out.0", decoded).tanh_().reshape(pathway.shape) + pathway
        return torch.view_as_complex(parts.reshape(*parts.shape[:3], _FILTER_HOPS, 2))

    def _conv(self, name: str, x: Tensor, past: dict[str, Tensor], *, stride: int = 1, last: bool = False) -> Tensor:
        """A convolution and ReLU (but for the last)."""
        layer = self._convolutions[name]
        weight, hops = layer.weight, layer.weight.shape[2] - 1
        if hops:
            before = past.get(name)
            if before is None:
                before = _features_last(x.new_zeros(*x.shape[:2], hops, x.shape[3]))
            x = torch.cat([before, x], dim=2)
            past[name] = x[:, :, -hops:]
        if weight.shape[1:] == (1, 1, 1):
            x = torch.addcmul(layer.offset[:, None, None], x, weight[:, 0])
        else:
            padding, groups = (0, weight.shape[3] // 2), x.shape[1] // weight.shape[1]
            x = functional.conv2d(
                x, weight, layer.offset if layer.mixing is None else None, (1, stride), padding, groups=groups
            )
        x = _mixed(layer, x)
        return x if last else x.relu_()

    def _transposed(self, name: str, x: Tensor) -> Tensor:
        layer = self._convolutions[name]
        x = functional.conv_transpose2d(
            x, layer.weight, stride=(1, 2), padding=(0, 1), output_padding=(0, 1), groups=x.shape[1]
        )
        return _mixed(layer, x).relu_()

    def _convolution(self, name: str, last: int) -> _Convolution:
        """The convolution of a name whose normalisation is the so manieth layer of upstream's sequence."""
        mean, variance, scale, offset = (
            self._weights[f"{name}.{last}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        gain = (scale / torch.sqrt(variance + _EPSILON))[:, None, None, None]
        offset = offset - mean * gain.flatten()
        before = self._weights[f"{name}.{last - 1}.weight"]
        weight = self._weights.get(f"{name}.{last - 2}.weight")
        if weight is None:
            return _Convolution(_features_last(gain * before), None, offset)
        mixing = (gain * before)[:, :, 0, 0]
        groups = _INPUTS.get(name, _FEATURES) // weight.shape[1]
        if groups == weight.shape[0]:
            return _Convolution(_features_last(weight), mixing, offset)
        # Each group's weights at its own inputs, and nothing at the others'.
        split, own = weight.reshape(groups, -1, *weight.shape[1:]), torch.eye(groups, device=self.device)
        whole = torch.einsum("goixy,gh->gohixy", split, own).flatten(2, 3).flatten(0, 1)
        merged = torch.einsum("om,mixy->oixy", mixing, whole)
        return _Convolution(_features_last(merged), None, offset)

    def _grouped(self, name: str, x: Tensor) -> Tensor:
        weight = self._weights[f"{name}.weight"]
        return torch.einsum("btgi,gih->btgh", x.reshape(*x.shape[:2], *weight.shape[:2]), weight).flatten(2)

    def _recurrent(self, name: str, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        layer = self._layers[name]
        x = self._grouped(f"{name}.linear_in.0", x).relu_()
        if self.device == "cpu":
            x, past[name] = _recurred(layer, self._across[name], x, past.get(name))
        else:
            x, past[name] = layer(x, past.get(name))
        is_squeezed_back = f"{name}.linear_out.0.weight" in self._weights
        return self._grouped(f"{name}.linear_out.0", x).relu_() if is_squeezed_back else x

    def _recurrent_layer(self, name: str) -> torch.nn.GRU:
        own = {key.removeprefix(f"{name}."): value for key, value in self._weights.items() if key.startswith(name)}
        layer = torch.nn.GRU(_WIDTH, _WIDTH, len(own) // 4, batch_first=True).to(self.device)
        layer.load_state_dict(own)
        return layer.eval().requires_grad_(False)


def _features_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _mixed(layer: _Convolution, x: Tensor) -> Tensor:
    if layer.mixing is None:
        return x
    return functional.linear(x.permute(0, 2, 3, 1), layer.mixing, layer.offset).permute(0, 3, 1, 2)


def _recurred(
    layers: torch.nn.GRU, across: Sequence[NDArray[np.float32]], x: Tensor, states: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What ``layers(x, states)`` gives, on a processor; `across` are the weights between states, transposed."""
    states = torch.zeros(len(across), x.shape[0], _WIDTH) if states is None else states.clone()
    for weights, between, state in zip(layers.all_weights, across, states, strict=True):
        from_inputs, _, input_bias, bias = weights
        given = functional.linear(x, from_inputs, input_bias)
        x = torch.from_numpy(recur(given.numpy(), between, bias.numpy(), state.numpy()))
    return x, states
