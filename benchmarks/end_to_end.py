"""Whether the whole pipeline brings a spoiled song back towards the clean one, and which stages help.

    python -m benchmarks.end_to_end [--seeds 200-207] [--seconds 20] [--stages] [--quick]

For each demo seed: the multi-resolution STFT distance (auraloss, Steinmetz & Reiss 2020, its loss at its
defaults) to the demo *without* pathologies, of the input (the demo with them), of mastering alone, and of the whole
pipeline (separate, restore each stem, mix, master), all brought to the clean demo's integrated loudness first. The
stages are called as domain functions in one process, with the settings that a job without options gets. The pipeline
must be at least 20 % nearer than the input, and nearer than mastering alone. With ``--stages`` each stage, and each
treatment of the mixer, is also left out in turn.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.rows import Row
from outboard import presets
from outboard.audio.analysis import analyze
from outboard.audio.demo import DemoSong, stem_sum, synthesise
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import blocks
from outboard.audio.stems import FOUR_STEMS
from outboard.testing import drained
from services.master.master import master
from services.master.plan import plan as plan_master
from services.master.settings import DeliverableSpec, MasterSettings
from services.mixer.console import MixSettings
from services.mixer.masking import erb_levels
from services.mixer.mix import mix
from services.mixer.plan import LABELS
from services.mixer.plan import plan as plan_mix
from services.restorer.restore import RestorationSettings, restore
from services.separator.engines import SeparationSettings
from services.separator.separate import separate

Audio = NDArray[np.float32]

RATE_HERTZ = 48_000
ROLES = {"vocals": "lead_vocal", "drums": "drums", "bass": "bass", "other": "other"}
LARGEST_SHARE_OF_INPUT = 0.8


@dataclass(frozen=True)
class Variant:
    """Which stages run (mastering always does), and what is left out of the mix."""

    stages: frozenset[str]
    bypass: tuple[str, ...] = ()


ALL_STAGES = frozenset({"separate", "restore", "mix"})
VARIANTS = {"mastering alone": Variant(frozenset()), "pipeline": Variant(ALL_STAGES)}
DISSECTED = {
    "restored song, no stems": Variant(frozenset({"restore"})),
    "without restoring": Variant(ALL_STAGES - {"restore"}),
    "without mixing": Variant(ALL_STAGES - {"mix"}),
    **{f"without {label}": Variant(ALL_STAGES, (label,)) for label in LABELS},
}


class Distance:
    """Loudness-matched multi-resolution STFT distance to a clean song."""

    def __init__(self, clean: Audio) -> None:
        self._loss = MultiResolutionSTFTLoss()
        self._lufs = integrated_loudness(clean, RATE_HERTZ)
        self._clean = torch.from_numpy(clean.copy())[None]

    def __call__(self, audio: Audio) -> float:
        """0 for the clean song itself; about 1 to 2 for spoiled ones."""
        lufs = integrated_loudness(audio, RATE_HERTZ)
        if lufs is None or self._lufs is None:
            raise ValueError("a demo without loudness cannot be compared")
        matched = audio * np.float32(10.0 ** ((self._lufs - lufs) / 20.0))
        with torch.no_grad():
            return float(self._loss(torch.from_numpy(np.ascontiguousarray(matched))[None], self._clean))


def joined(stream: Generator[Audio, None, object]) -> Audio:
    """All blocks of a stage."""
    return np.concatenate(drained(stream)[0], axis=1)


def separated(song: Audio) -> dict[str, Audio]:
    """The song's stems by the embedded engine."""
    parts = list(separate(blocks(song), RATE_HERTZ, SeparationSettings(), frames=song.shape[1]))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in FOUR_STEMS}


def restored(stems: Mapping[str, Audio]) -> dict[str, Audio]:
    """Every stem through the restorer."""
    return {name: joined(restore(stem, RATE_HERTZ, RestorationSettings())) for name, stem in stems.items()}


def mixed(stems: Mapping[str, Audio], song: Audio, preset: presets.Preset, bypass: tuple[str, ...] = ()) -> Audio:
    """The stems on the console, planned from their measurements and the song's."""
    analyses = {name: analyze(stem, RATE_HERTZ) for name, stem in stems.items()}
    levels = {name: erb_levels(stem, RATE_HERTZ) for name, stem in stems.items()}
    settings = MixSettings(bypass=bypass)
    plan = plan_mix(analyses, ROLES, analyze(song, RATE_HERTZ), preset, settings, levels=levels)
    return joined(mix(stems, RATE_HERTZ, plan))


def mastered(song: Audio, preset: presets.Preset) -> Audio:
    """The master as delivered, 32-bit float."""
    settings = MasterSettings(deliverables=(DeliverableSpec("master", bit_depth="32f"),))
    plan = plan_master(analyze(song, RATE_HERTZ), settings, preset.values)
    with tempfile.TemporaryDirectory() as folder:
        result = master(song, RATE_HERTZ, plan, directory=Path(folder))
        audio, _ = soundfile.read(result.deliverables[0].path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(audio.T)


def run(song: Audio, variant: Variant, preset: presets.Preset) -> Audio:
    """The pipeline as the variant has it; mastering always runs."""
    stages = variant.stages
    if "separate" not in stages:
        return mastered(restored({"song": song})["song"] if "restore" in stages else song, preset)
    stems = separated(song)
    if "restore" in stages:
        stems = restored(stems)
    return mastered(mixed(stems, song, preset, variant.bypass) if "mix" in stages else stem_sum(stems), preset)


def judge(demo: DemoSong, title: str, variants: Mapping[str, Variant], preset: presets.Preset) -> list[Row]:
    """Distances of every variant of one demo, against the input's and against mastering alone."""
    distance = Distance(demo.clean)
    before = distance(demo.song)
    after = {name: distance(run(demo.song, variant, preset)) for name, variant in variants.items()}
    rows = [_compared(f"{title}: {name} / input", ours, before, None) for name, ours in after.items()]
    ours, alone = after["pipeline"], after["mastering alone"]
    rows.append(_compared(f"{title}: pipeline / input", ours, before, LARGEST_SHARE_OF_INPUT))
    rows.append(_compared(f"{title}: pipeline / mastering alone", ours, alone, 1.0))
    return rows


def summarise(found: list[Row]) -> list[Row]:
    """Means over the demos of each comparison."""
    groups: dict[tuple[str, float | None], list[Row]] = {}
    for row in found:
        groups.setdefault((row.name.split(": ", 1)[1], row.goal), []).append(row)
    return [
        _compared(
            f"mean: {name}",
            float(np.mean([row.ours for row in group])),
            float(np.mean([row.theirs for row in group])),
            goal,
        )
        for (name, goal), group in groups.items()
    ]


def _compared(name: str, ours: float, theirs: float, goal: float | None) -> Row:
    return rows.at_most(name, ours, theirs, "MR-STFT distance", goal)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: list[str] | None = None) -> int:
    """Prints all rows; 0 where every goal holds."""
    parser = rows.parser(__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(200, 208), help="of demo songs, as FIRST-LAST")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each demo")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--stages", action="store_true", help="also leave out each stage in turn")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    preset = presets.load(options.preset)
    seconds = 12.0 if options.quick else options.seconds
    variants = {**VARIANTS, **DISSECTED} if options.stages else VARIANTS
    judged: list[Row] = []
    for seed in options.seeds[:2] if options.quick else options.seeds:
        found = judge(synthesise(seed, seconds), f"demo {seed}", variants, preset)
        rows.show(found, as_json=options.json)
        judged += found
    rows.show(summarise(judged), as_json=options.json)
    return rows.exit_code(judged)


if __name__ == "__main__":
    sys.exit(main())
