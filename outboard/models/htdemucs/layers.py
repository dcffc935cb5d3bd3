"""HTDemucs' convolutional layers, written so that a CPU can leave channels innermost from one end to the other.

The mathematics is upstream's (``demucs.hdemucs.HEncLayer``, ``HDecLayer``, ``demucs.demucs.DConv``), the order of
operations is not; results differ by rounding (about 130 dB below the signal). What is gained, measured in OpenVINO, is
an eighth of the network's time, which went into moving data between layouts:

- every convolution is two-dimensional, also those over time alone: one-dimensional ones are computed in a layout of
  their own, into and out of which their surroundings have to be copied;
- the residual branches take the rows of a spectrogram as a batch through transpositions that cost nothing when
  channels lie innermost;
- their normalisation (``GroupNorm`` with one group) is written out, which is recognised as one operation, where an
  export of the group norm itself reshapes its input to a line per row;
- a gated linear unit after a convolution is two convolutions, of half of the channels each: halving the channels of a
  tensor copies it;
- a transposed convolution leaves its margins away, instead of having them cut off afterwards.

Only layers as the published networks have them are rewritten; any other is left to upstream.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from outboard.models.htdemucs.network import Core

Layer = Any
"""Upstream's HEncLayer or HDecLayer."""
_BRANCH = ("Conv1d", "GroupNorm", "GELU", "Conv1d", "GroupNorm", "GLU", "LayerScale")


class ExportedCore(Core):
    """The core as it is exported."""

    def encode(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`Core.encode`."""
        if not _is_published(layer, layer.norm1, layer.norm2):
            return super().encode(layer, x)
        if layer.freq:
            return _gated(layer.rewrite, _residual_rows(layer.dconv, functional.gelu(layer.conv(x))))
        x = functional.pad(x, (0, -x.shape[-1] % layer.stride))[:, :, None]
        x = functional.conv2d(x, _flat(layer.conv), layer.conv.bias, stride=(1, layer.stride), padding=(0, layer.pad))
        return _gated(layer.rewrite, _residual(layer.dconv, functional.gelu(x)))[:, :, 0]

    def decode(self, layer: Layer, x: torch.Tensor, skip: torch.Tensor, length: int) -> torch.Tensor:
        """As :meth:`Core.decode`."""
        if not _is_published(layer, layer.norm1, layer.norm2):
            return super().decode(layer, x, skip, length)
        backwards = layer.conv_tr
        if layer.freq:
            x = _residual_rows(layer.dconv, _gated(layer.rewrite, x + skip))
            x = functional.conv_transpose2d(
                x, backwards.weight, backwards.bias, stride=backwards.stride, padding=(layer.pad, 0)
            )
        else:
            x = _residual(layer.dconv, _gated(layer.rewrite, (x + skip)[:, :, None]))
            x = functional.conv_transpose2d(
                x, _flat(backwards), backwards.bias, stride=(1, *backwards.stride), padding=(0, layer.pad)
            )
            x = x[:, :, 0, :length]
        return x if layer.last else functional.gelu(x)


def _is_published(layer: Layer, *norms: torch.nn.Module) -> bool:
    """Whether there is nothing in a layer but what is rewritten here."""
    if layer.empty or layer.rewrite is None or layer.dconv is None:
        return False
    branches = [tuple(type(part).__name__ for part in branch) for branch in layer.dconv.layers]
    groups = [part.num_groups for branch in layer.dconv.layers for part in branch if hasattr(part, "num_groups")]
    plain = all(isinstance(norm, torch.nn.Identity) for norm in norms)
    return plain and all(names == _BRANCH for names in branches) and set(groups) <= {1}


def _flat(convolution: Any) -> torch.Tensor:
    """The weight of a convolution over time as that of one over an image of one row."""
    weight: torch.Tensor = convolution.weight
    return weight if weight.dim() == 4 else weight[:, :, None]


def _gated(convolution: Any, x: torch.Tensor) -> torch.Tensor:
    """A convolution and the gated linear unit over its channels, of x [B, C, rows, T]."""
    half = convolution.out_channels // 2
    weight, bias = _flat(convolution), convolution.bias
    padding = convolution.padding if convolution.weight.dim() == 4 else (0, *convolution.padding)
    value = functional.conv2d(x, weight[:half], bias[:half], padding=padding)
    return value * torch.sigmoid(functional.conv2d(x, weight[half:], bias[half:], padding=padding))


def _residual_rows(dconv: Layer, x: torch.Tensor) -> torch.Tensor:
    """The residual branches on each row of x [B, C, rows, T] by itself."""
    batch, channels, rows, steps = x.shape
    apart = x.permute(0, 2, 3, 1).reshape(batch * rows, 1, steps, channels).permute(0, 3, 1, 2)
    done = _residual(dconv, apart)
    return done.permute(0, 2, 3, 1).reshape(batch, rows, steps, channels).permute(0, 3, 1, 2)


def _residual(dconv: Layer, x: torch.Tensor) -> torch.Tensor:
    """The residual branches on x [B, C, 1, T]."""
    for narrow, norm, _, widen, last_norm, _, scale in dconv.layers:
        padding, dilation = (0, *narrow.padding), (1, *narrow.dilation)
        y = functional.conv2d(x, _flat(narrow), narrow.bias, padding=padding, dilation=dilation)
        y = functional.conv2d(functional.gelu(_normalised(y, norm)), _flat(widen), widen.bias)
        x = x + scale.scale[:, None, None] * functional.glu(_normalised(y, last_norm), 1)
    return x


def _normalised(x: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Group norm with one group."""
    centred = x - x.mean((1, 2, 3), keepdim=True)
    variance = (centred * centred).mean((1, 2, 3), keepdim=True)
    return centred / torch.sqrt(variance + norm.eps) * norm.weight[:, None, None] + norm.bias[:, None, None]
