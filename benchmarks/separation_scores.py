"""Scores of separated stems as a table (JSON, Markdown) and a plot (SVG)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import stft

from benchmarks.bss_eval import bss_eval

Audio = NDArray[np.float32]
MEASURES = ("sdr", "si_sdr", "sir", "sar")
TITLES = {"sdr": "SDR", "si_sdr": "SI-SDR", "sir": "SIR", "sar": "SAR"}
# The mixture has no artefacts at all: its bar would dwarf every other.
_PLOTTED_DB = 30
_COLOURS = ("#2a6fbb", "#b9b9b9", "#c96f2a", "#4b9a5b")


@dataclass(frozen=True)
class Score:
    """One stem of one clip by one engine, in dB; ``None`` where no second could be judged.

    Attributes:
        sdr, sir, sar: median over seconds (:mod:`benchmarks.bss_eval`).
        si_sdr: over the whole clip.
        error_flux: how restless the error is (:func:`flux`): masks that flicker leave tones that come and go, which
            are heard as musical noise.
    """

    clip: str
    engine: str
    stem: str
    sdr: float | None
    si_sdr: float | None
    sir: float | None
    sar: float | None
    error_flux: float | None = None


def flux(audio: Audio, sample_rate_hertz: int) -> float:
    """Spectral flux from 0 to 1: what magnitudes rise by from one look to the next, over the magnitudes.

    Looks are 46 ms long and do not overlap, so steady tones have about 0, noise 0.3, and what appears out of nothing
    and goes at once 0.5 and more.
    """
    _, _, spectra = stft(audio, nperseg=1 << round(math.log2(0.046 * sample_rate_hertz)), noverlap=0, boundary=None)
    magnitudes = np.abs(spectra)
    rises = np.maximum(np.diff(magnitudes, axis=-1), 0.0)
    total = float(np.sum(magnitudes[..., 1:], dtype=np.float64))
    return float(np.sum(rises, dtype=np.float64)) / total if total > 0.0 else 0.0


def si_sdr_db(truth: Audio, estimate: Audio) -> float:
    """Scale-invariant signal-to-distortion ratio over all channels in dB. ``truth`` must not be silent."""
    target, guess = truth.ravel().astype(np.float64), estimate.ravel().astype(np.float64)
    scaled = (target @ guess) / (target @ target) * target
    error = guess - scaled
    return float(10 * np.log10((scaled @ scaled + 1e-20) / (error @ error + 1e-20)))


def score(
    clip: str, engine: str, truths: Mapping[str, Audio], stems: Mapping[str, Audio], sample_rate_hertz: int
) -> list[Score]:
    """Scores of all stems of a clip but those that are silent in it, or that the engine left silent."""
    names = [name for name in truths if np.any(truths[name]) and np.any(stems[name])]
    if not names:
        return []
    true, found = (np.stack([side[name] for name in names]).astype(np.float64) for side in (truths, stems))
    judged = bss_eval(true, found, sample_rate_hertz)
    return [
        Score(
            clip,
            engine,
            name,
            sdr=_known(judged[i].median("sdr")),
            si_sdr=si_sdr_db(truths[name], stems[name]),
            sir=_known(judged[i].median("sir")),
            sar=_known(judged[i].median("sar")),
            error_flux=flux(stems[name] - truths[name], sample_rate_hertz),
        )
        for i, name in enumerate(names)
    ]


def medians(scores: Sequence[Score]) -> list[Score]:
    """Median over clips per engine and stem, as campaigns report it."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for one in scores:
        groups.setdefault((one.engine, one.stem), []).append(one)
    return [
        Score(
            "median",
            engine,
            stem,
            **{name: _median([getattr(one, name) for one in group]) for name in (*MEASURES, "error_flux")},
        )
        for (engine, stem), group in groups.items()
    ]


def write_scores(scores: Sequence[Score], folder: Path) -> None:
    """``scores.json`` (every clip), ``scores.md`` and ``scores.svg`` (every clip's medians)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n")
    (folder / "scores.md").write_text(markdown(scores))
    (folder / "scores.svg").write_text(plot(medians(scores)))


def markdown(scores: Sequence[Score]) -> str:
    """A table of all clips and of their medians."""
    head = ["clip", "engine", "stem", *(f"{TITLES[name]}, dB" for name in MEASURES), "flux of the error"]
    body = [
        [one.clip, one.engine, one.stem, *(_shown(getattr(one, name)) for name in (*MEASURES, "error_flux"))]
        for one in [*scores, *medians(scores)]
    ]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def plot(summary: Sequence[Score]) -> str:
    """Bars per stem and measure, one colour per engine, cut off at 30 dB: an SVG file of its own."""
    engines = list(dict.fromkeys(one.engine for one in summary))
    stems = list(dict.fromkeys(one.stem for one in summary))
    values = [getattr(one, name) for one in summary for name in MEASURES if getattr(one, name) is not None]
    low = max(math.floor(min([0.0, *values]) / 5) * 5, -_PLOTTED_DB)
    high = min(math.ceil(max([5.0, *values]) / 5) * 5, _PLOTTED_DB)
    height, bar, width = (
        240.0,
        14.0,
        60 + len(MEASURES) * len(stems) * (len(engines) * 14.0 + 14.0) + 20 * len(MEASURES),
    )

    def y(value: float) -> float:
        return 30 + height * (high - min(max(value, low), high)) / (high - low)

    parts = [
        f'<line x1="50" x2="{width:.0f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
        f'<text x="44" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
        for tick in range(low, high + 1, 5)
    ]
    x = 60.0
    for name in MEASURES:
        parts.append(f'<text x="{x:.0f}" y="20" font-weight="bold">{TITLES[name]}, dB</text>')
        for stem in stems:
            parts.append(f'<text x="{x:.0f}" y="{height + 48:.0f}">{escape(stem)}</text>')
            for one in (one for one in summary if one.stem == stem):
                value = getattr(one, name)
                at = x + bar * engines.index(one.engine)
                if value is not None:
                    top, bottom = y(max(value, 0.0)), y(min(value, 0.0))
                    colour = _COLOURS[engines.index(one.engine) % len(_COLOURS)]
                    parts.append(
                        f'<rect x="{at:.0f}" y="{top:.1f}" width="{bar - 2:.0f}" height="{bottom - top:.1f}" '
                        f'fill="{colour}"><title>{escape(one.engine)}, {escape(stem)}: {value:.1f} dB</title></rect>'
                    )
            x += len(engines) * bar + 14.0
        x += 20.0
    for place, engine in enumerate(engines):
        colour = _COLOURS[place % len(_COLOURS)]
        parts.append(f'<text x="{60 + 120 * place}" y="{height + 70:.0f}" fill="{colour}">■ {escape(engine)}</text>')
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height + 80:.0f}"'
    font = 'font-family="sans-serif" font-size="11"'
    return f'<svg {head} {font}><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
