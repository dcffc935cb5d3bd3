"""Fits the numbers of the weights-free engine (``services/separator/spectral/weights.py``) to songs with their truth.

    python -m benchmarks.fit_spectral [--seeds 0-7] [--truth FOLDER] [--rounds 60] [--afresh]

Starts from the numbers that stand there (``--afresh``: from nothing), takes each song as it is and as ``VARIANTS``
other mixtures of its stems (rebalanced, narrow, wide, mono, dull), and prints the fitted tables as Python, to be
pasted. Judge them on other songs: ``python -m benchmarks.separation --seeds 100-107 --truth FOLDER``.

What is maximised is the mean of SDR and SI-SDR over stems and songs, less a decay of the weights, by Adam (Kingma & Ba
2015). With masks m that are real, both follow from three sums per stem over all bins of the mixture X and the stem S,
so that no audio is synthesised while fitting: of m^2 |X|^2, of m Re(X* S) and of |S|^2. Needs torch (`make models`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from benchmarks.separation import Clip, demo_clips, musdb_clips
from outboard.audio.overlap_add import StreamingStft, fixed_blocks
from outboard.audio.stems import FOUR_STEMS
from services.separator.spectral.cues import CUES
from services.separator.spectral.engine import SpectralSeparation
from services.separator.spectral.fusion import LOW_SHARPNESS, LOW_SHARPNESS_HERTZ
from services.separator.spectral.grid import Grid
from services.separator.spectral.weights import CUE_WEIGHTS, PRIOR_KNOTS_HERTZ, PRIORS

CLIP_SECONDS = 12.0
VARIANTS = 2
RATE, DECAY = 0.02, 1e-3
_FLOOR = 1e-9


@dataclass(frozen=True)
class Example:
    """One song as the fit sees it.

    Attributes:
        cues: (cues, steps, bins).
        power: of the mixture, (steps, bins).
        common: Re(X* S) of each stem, (stems, steps, bins).
        energy: of each stem, (stems,).
        prior, sharpness: what the knots of the priors, and the low end, weigh at each bin: (knots, bins), (bins,).
    """

    cues: torch.Tensor
    power: torch.Tensor
    common: torch.Tensor
    energy: torch.Tensor
    prior: torch.Tensor
    sharpness: torch.Tensor


@dataclass(frozen=True)
class Numbers:
    """What is fitted: (stems, cues) and (stems, knots)."""

    weights: torch.Tensor
    priors: torch.Tensor


def standing() -> Numbers:
    """The numbers that the engine has."""
    weights = np.array([CUE_WEIGHTS[cue] for cue in CUES], np.float32).T
    return Numbers(torch.tensor(weights), torch.tensor(np.array(list(PRIORS.values()), np.float32)))


def varied(clip: Clip, generator: np.random.Generator) -> Clip:
    """Another mixture of the same stems: each 6 dB up or down at most, narrower or wider, every third one dull."""
    width = generator.choice([0.0, 0.5, 1.0, 1.5])
    dull = generator.random() < 1 / 3
    low_pass = butter(4, 7_000.0, fs=clip.sample_rate_hertz, output="sos")
    stems = {}
    for name, stem in clip.stems.items():
        middle = stem.mean(axis=0, keepdims=True)
        other = (middle + width * (stem - middle)) * 10 ** (generator.uniform(-6.0, 6.0) / 20)
        stems[name] = np.asarray(sosfilt(low_pass, other) if dull else other, np.float32)
    return replace(clip, mixture=np.sum(list(stems.values()), axis=0, dtype=np.float32), stems=stems)


def example(clip: Clip) -> Example:
    """What is to be known of a song."""
    grid = Grid(clip.sample_rate_hertz)
    channels = clip.mixture.shape[0]
    separation = SpectralSeparation(clip.sample_rate_hertz, channels, two_stems=False)
    batches = list(separation.evidence(iter([clip.mixture])))
    spectra = np.concatenate([batch.spectra for batch, _ in batches])
    stems = [np.concatenate(list(_spectra(clip.stems[name], grid, len(batches)))) for name in FOUR_STEMS]
    octaves = np.log2(np.clip(grid.hertz, PRIOR_KNOTS_HERTZ[0], PRIOR_KNOTS_HERTZ[-1]))
    knots = np.log2(PRIOR_KNOTS_HERTZ)
    prior = np.stack([np.interp(octaves, knots, row) for row in np.eye(len(knots))])
    sharpness = np.interp(grid.hertz, LOW_SHARPNESS_HERTZ, (LOW_SHARPNESS, 1.0))
    return Example(
        _tensor(np.concatenate([cues for _, cues in batches], axis=1)),
        _tensor(np.sum(np.abs(spectra) ** 2, axis=1)),
        _tensor(np.stack([np.sum((spectra.conj() * stem).real, axis=1) for stem in stems])),
        _tensor(np.array([np.sum(np.abs(stem) ** 2) for stem in stems])),
        _tensor(prior),
        _tensor(sharpness),
    )


def quality(numbers: Numbers, song: Example) -> torch.Tensor:
    """SDR and SI-SDR in dB, (2, stems that are not silent)."""
    odds = torch.tensordot(numbers.weights, song.cues, dims=1) + (numbers.priors @ song.prior)[:, None]
    masks = torch.softmax(odds * song.sharpness, dim=0)
    own = (masks**2 * song.power).sum((1, 2))
    common = (masks * song.common).sum((1, 2))
    true = song.energy.clamp_min(_FLOOR)
    sdr = true / (own - 2 * common + true).clamp_min(_FLOOR)
    aligned = common**2 / true
    si_sdr = aligned / (own - aligned).clamp_min(_FLOOR)
    return 10 * torch.log10(torch.stack([sdr, si_sdr]).clamp_min(_FLOOR))[:, song.energy > _FLOOR]


def fit(songs: list[Example], start: Numbers, rounds: int) -> Numbers:
    """The numbers after so many rounds over all songs."""
    weights, priors = (part.clone().requires_grad_() for part in (start.weights, start.priors))
    fitted = Numbers(weights, priors)
    adam = torch.optim.Adam([weights, priors], lr=RATE)
    for number in range(rounds):
        reached = []
        for song in songs:
            adam.zero_grad()
            decibels = quality(fitted, song).mean()
            loss = DECAY * (weights.square().sum() + priors.square().sum()) - decibels
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            reached.append(float(decibels.detach()))
        print(f"round {number + 1}: {np.mean(reached):.3f} dB", file=sys.stderr, flush=True)
    return Numbers(weights.detach(), priors.detach())


def tables(numbers: Numbers) -> str:
    """As ``weights.py`` has them."""
    priors = [
        f'    "{name}": ({", ".join(f"{value:.2f}" for value in row)}),'
        for name, row in zip(PRIORS, numbers.priors.tolist(), strict=True)
    ]
    cues = [
        f'    "{cue}": ({", ".join(f"{value:.2f}" for value in row)}),'
        for cue, row in zip(CUES, numbers.weights.T.tolist(), strict=True)
    ]
    return "\n".join(["PRIORS = {", *priors, "}", "", "CUE_WEIGHTS = {", *cues, "}"])


def _spectra(stem: NDArray[np.float32], grid: Grid, count: int) -> Iterator[NDArray[np.complex64]]:
    """A stem on the grid, in as many batches as the engine made of the song."""
    transform = StreamingStft(stem.shape[0], grid.window_frames, grid.hop_frames)
    missing = count * grid.batch_frames - stem.shape[1]
    for block in fixed_blocks([np.pad(stem, ((0, 0), (0, missing)))], grid.batch_frames):
        yield transform.process(block)


def _tensor(array: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-7", help="of demo songs, as FIRST-LAST")
    parser.add_argument("--truth", type=Path, help="folder of songs in MUSDB18-HQ's layout")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--afresh", action="store_true", help="start from nothing")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    clips = list(demo_clips(range(int(first), int(last or first) + 1), CLIP_SECONDS))
    if options.truth:
        clips += musdb_clips(options.truth, CLIP_SECONDS)
    generator = np.random.default_rng(0)
    songs = [example(one) for clip in clips for one in (clip, *(varied(clip, generator) for _ in range(VARIANTS)))]
    start = standing()
    if options.afresh:
        start = Numbers(torch.zeros_like(start.weights), torch.zeros_like(start.priors))
    print(tables(fit(songs, start, options.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
