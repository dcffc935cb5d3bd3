"""What every mix must reach, for excerpts (`make test`) and whole songs (`make acceptance`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outboard import presets
from outboard.audio.analysis import analyze
from outboard.testing import drained
from services.mixer.buses import MUSIC_BUS, VOCAL_BUS, low_mid_share_db
from services.mixer.console import MixPlan, MixReport, MixSettings
from services.mixer.desk import Desk
from services.mixer.hearing import hear
from services.mixer.masking import masking
from services.mixer.mix import BLOCK_FRAMES, mix
from services.mixer.plan import plan

RATE = 48_000
POTASSIUM = {
    "kick": "kick", "snare": "snare", "hats": "hats", "trap_beat": "drums", "breakbeat": "drums", "pad_bass": "bass",
    "keys": "keys", "minilogue_synth": "synth", "microcosm_effect": "fx", "vox_lead": "lead_vocal",
    "bgvox_alt": "backing_vocal", "bgvox_echo": "backing_vocal",
}  # fmt: skip
SEPARATED = {"vocals": "lead_vocal", "drums": "drums", "bass": "bass", "other": "other"}
LESS_MASKING = 0.20
BALANCE_DB = 1.0
BALANCED = presets.load("balanced")


@dataclass(frozen=True)
class Mixed:
    """A finished mix and what is judged about it."""

    audio: np.ndarray
    report: MixReport
    masking_before: float
    masking_after: float
    low_mid_before_db: float
    low_mid_after_db: float


def mixed(stems: Mapping[str, np.ndarray], roles: Mapping[str, str], song: np.ndarray | None, folder: Path) -> Mixed:
    """Plans and mixes; masking is measured again on a desk of its own, of the vocal bus by the music bus."""
    analyses = {name: analyze(stem, RATE) for name, stem in stems.items()}
    heard = {name: hear(stem, RATE) for name, stem in stems.items()}
    whole = None if song is None else analyze(song, RATE)
    decided = plan(analyses, roles, whole, BALANCED, MixSettings(), heard=heard)
    blocks, report = drained(mix(stems, RATE, decided, spool_directory=folder))
    before, after = _bus_levels(stems, report.plan)
    return Mixed(
        audio=np.concatenate(blocks, axis=1),
        report=report,
        masking_before=masking(before[VOCAL_BUS], [before[MUSIC_BUS]]).index,
        masking_after=masking(after[VOCAL_BUS], [after[MUSIC_BUS]]).index,
        low_mid_before_db=low_mid_share_db(before[MUSIC_BUS]),
        low_mid_after_db=low_mid_share_db(after[MUSIC_BUS]),
    )


def _bus_levels(stems: Mapping[str, np.ndarray], rendered: MixPlan) -> tuple[dict, dict]:  # type: ignore[type-arg]
    desk = Desk(rendered, RATE)
    frames = next(iter(stems.values())).shape[1]
    for start in range(0, frames + desk.latency_frames, BLOCK_FRAMES):
        blocks = {}
        for name, stem in stems.items():
            block = np.zeros((2, BLOCK_FRAMES), np.float32)
            piece = stem[:, start : start + BLOCK_FRAMES]
            block[:, : piece.shape[1]] = piece
            blocks[name] = block
        desk.process(blocks, start)
    return desk.bus_levels()


def figures(found: Mixed) -> str:
    """What docs/benchmarks.md tells of a mix, in a line."""
    rails = {rail.name: f"{rail.value:.2f} in {rail.rounds} rounds" for rail in found.report.rails}
    total = found.report.buses[-1]
    widths = " to ".join(
        f"{ratio or 0.0:.1f}" for ratio in (total.mid_side_ratio_before_db, total.mid_side_ratio_after_db)
    )
    return (
        f"masking {found.masking_before:.3f} to {found.masking_after:.3f}, "
        f"{100 * (1 - found.masking_after / found.masking_before):.0f} % less; "
        f"low middle {found.low_mid_before_db:.1f} to {found.low_mid_after_db:.1f} dB; "
        f"side over mid behind the strips {widths} dB; {rails}"
    )


def check_mix(found: Mixed) -> None:
    """Every guard-rail holds; voices are less covered at the same balance; the low middle moves to its target."""
    missed = [f"{rail.name} {rail.value:.2f} (limit {rail.limit:g})" for rail in found.report.rails if not rail.held]
    assert not missed, missed
    rails = {rail.name: rail for rail in found.report.rails}
    less = 1.0 - found.masking_after / found.masking_before
    balance = rails["vocal_balance"].value
    assert less >= LESS_MASKING, (
        f"masking of voices by music {found.masking_before:.3f} -> {found.masking_after:.3f}: {100 * less:.0f} % less, "
        f"at {balance:+.2f} dB of balance"
    )
    assert abs(balance) <= BALANCE_DB + 0.02, f"voices moved by {balance:+.2f} dB against the music"
    target = BALANCED["mix.bus.low_mid_share_db"]
    off = [abs(share - target) for share in (found.low_mid_before_db, found.low_mid_after_db)]
    assert off[1] <= max(off[0], 0.6), (
        f"low middle of the music {found.low_mid_before_db:.1f} -> {found.low_mid_after_db:.1f} dB, target {target:.1f}"
    )


def check_faders(found: Mixed) -> None:
    """A separated song's strips stay within 3 dB of the song's balance, in every section."""
    for strip in found.report.plan.strips:
        for point in strip.envelope:
            assert abs(strip.gain_db + point.gain_db) <= 3.0, f"{strip.stem}: {strip.gain_db} and {point.gain_db} dB"
        assert abs(strip.gain_db) <= 3.0, f"{strip.stem}: {strip.gain_db:.1f} dB"
