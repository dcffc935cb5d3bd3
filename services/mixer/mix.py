"""Renders a plan: stems through strips and buses into one stereo mix.

    stem -> [strip chain -> fader, pan] -> bus -> [bus chain -> fader] -> mix -> [master chain -> trim] -> spool ->
    out

Everything runs in blocks of one fixed size over memory-mapped stems, so the bytes of the mix do not depend on how
anything was cut, and memory does not depend on the song's length. Every path is delayed to the slowest one, and the
delay is taken off the front: an impulse at frame n stays at frame n. The finished mix goes through a spool on disk,
because the peak target and the correlation guard need its whole length before the first frame may leave. A plugin
that breaks down costs what was rendered so far: everything is begun again (see ``PluginRack``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.audio.filters import Audio, to_float32
from outboard.audio.plugins.facts import PluginFailed
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.reporting import Progress, Warning
from outboard.audio.spool import Spool
from outboard.audio.stereo import StereoMeter, left_right, mid_side
from outboard.errors import InvalidInput
from services.mixer.buses import MUSIC_BUS, VOCAL_BUS
from services.mixer.check import check_plan
from services.mixer.console import CONSOLE, GuardRail, MixPlan, MixReport, PluginRun, engine_info
from services.mixer.desk import Desk, crest_factor_db
from services.mixer.masking import CENTRES_HERTZ
from services.mixer.rails import (
    MOST_ROUNDS,
    STEP_DB,
    Result,
    corrected,
    judged,
    side_limit_db,
    side_steps,
    vocal_balance_change_db,
    warnings,
)

# Frames per block inside: large enough for the FFT filters, small enough for twelve stems in the cache.
BLOCK_FRAMES = 16_384
# Share of the work that is done when the spool is complete.
_RENDERED = 0.95


def mix(
    stems: Mapping[str, NDArray[Any]],
    sample_rate_hertz: int,
    plan: MixPlan,
    progress: Progress | None = None,
    *,
    spool_directory: Path | None = None,
    plugins: PluginRack | None = None,
    corrections: int = MOST_ROUNDS,
) -> Generator[Audio, None, MixReport]:
    """Renders ``plan`` over ``stems``; yields the mix in order as blocks ``(2, n)`` and returns the report.

    Args:
        stems: name -> ``(channels, frames)`` with 1 or 2 channels, all of one length; memory maps are read in blocks.
        sample_rate_hertz: of all stems.
        plan: its strips name the stems.
        progress: called with the finished share at every block; may raise to cancel.
        spool_directory: a folder on a disk for the mix before its trim; None: the system's.
        plugins: what runs the plan's plugins, closed here; None: their stand-ins take their slots.
        corrections: how often the plan may be corrected and rendered again for a guard-rail; 0: never, since somebody
            wants it as it is.

    Raises:
        InvalidInput: a plan that `check_plan` refuses, lengths that differ, channels that are neither mono nor stereo.
    """
    check_plan(plan, stems, sample_rate_hertz)
    frames = _check_stems(stems)
    tell = progress or (lambda fraction: None)
    rounds = 0
    with (
        plugins or PluginRack(None) as rack,
        Spool(2, spool_directory) as spool,
        ThreadPoolExecutor(os.cpu_count(), "strip") as pool,
    ):
        while True:
            try:
                desk = Desk(plan, sample_rate_hertz, rack, frames, pool.map)
                meter, peak = _render(desk, stems, frames, spool, _again(tell) if rounds else _first(tell))
            except PluginFailed as error:
                rack.failed(error)
                spool.clear()
                continue
            better = corrected(plan, _result(desk, meter, peak)) if plan.peak_target_dbfs is not None else None
            if better is None or rounds >= corrections:
                break
            plan, rounds = better, rounds + 1
            spool.clear()
            rack.close()
        rack.close()
        finish = _Finish(plan, desk, meter, peak, rounds, as_given=corrections == 0)
        rendered = spool.array
        for start in range(0, frames, BLOCK_FRAMES):
            yield finish.process(np.array(rendered[:, start : start + BLOCK_FRAMES]))
            tell(_RENDERED + (1.0 - _RENDERED) * min(1.0, (start + BLOCK_FRAMES) / frames))
    return _report(plan, finish, frames, rack)


def _first(tell: Progress) -> Progress:
    return lambda done: tell(_RENDERED * done)


def _again(tell: Progress) -> Progress:
    """Progress only goes forward: what is rendered again is told as done, and may still be cancelled."""
    return lambda done: tell(_RENDERED)


def _render(
    desk: Desk, stems: Mapping[str, NDArray[Any]], frames: int, spool: Spool, tell: Progress
) -> tuple[StereoMeter, float]:
    """The whole mix into the spool; what its sides and its peak are.

    Raises:
        PluginFailed: a plugin broke down on the way.
    """
    meter, peak = StereoMeter(), 0.0
    # Not a frame more than it takes: what was measured would depend on the size of blocks.
    total = frames + desk.latency_frames if frames else 0
    for start in range(0, total, BLOCK_FRAMES):
        size = min(BLOCK_FRAMES, total - start)
        block = desk.process({name: _stereo_block(stem, start, size) for name, stem in stems.items()}, start)
        early = max(0, desk.latency_frames - start)
        kept = block[:, early : early + frames - spool.frames]
        if kept.shape[1]:
            meter.process(kept)
            peak = max(peak, float(np.max(np.abs(kept))))
            spool.append(kept)
        tell(min(1.0, (start + BLOCK_FRAMES) / frames))
    return meter, peak


def _result(desk: Desk, meter: StereoMeter, peak: float) -> Result:
    strips, buses = desk.reports()
    source, mixed = desk.source.crest_factor_db, crest_factor_db(peak, meter)
    return Result(
        parts=(*strips, *buses),
        crest_change_db=None if source is None or mixed is None else mixed - source,
        balance_change_db=vocal_balance_change_db(desk.loudness_lufs(VOCAL_BUS), desk.loudness_lufs(MUSIC_BUS)),
    )


class _Finish:
    """What only the whole mix can tell: the trim to the peak target, and sides that are too loud."""

    def __init__(
        self, plan: MixPlan, desk: Desk, meter: StereoMeter, peak: float, rounds: int, *, as_given: bool
    ) -> None:
        self.as_given = as_given
        self.reports, self.masking = desk.reports(), desk.masking()
        self._plan, self._result, self._rounds = plan, _result(desk, meter, peak), rounds
        self._side_limit_db = side_limit_db(desk.source.meter.mid_side_ratio_db)
        self.meter = StereoMeter()
        self.peak = 0.0
        self._side_steps, self._gain = 0, 1.0
        if plan.peak_target_dbfs is not None:
            if meter.mid_side_ratio_db is not None:
                self._side_steps = side_steps(meter.mid_side_ratio_db, self._side_limit_db)
            if peak > 0.0:
                # Narrower channels are blends of the wider ones, so lower sides raise no peak.
                self._gain = min(1.0, 10.0 ** (plan.peak_target_dbfs / 20.0) / peak)
        self._side_gain = 10.0 ** (-self._side_steps * STEP_DB / 20.0)
        self.trim_db = plan.trim_db + 20.0 * math.log10(self._gain)

    def rails(self) -> tuple[tuple[GuardRail, ...], list[Warning]]:
        """How the mix stands to its guard-rails, and what must be said; of a plain sum only reductions."""
        if self._plan.peak_target_dbfs is None and not self.as_given:
            return (), warnings(self._plan, (), self._result)
        rails = judged(
            self._plan,
            self._result,
            side_mid_ratio_db=self.meter.mid_side_ratio_db,
            side_limit=self._side_limit_db,
            correlation=self.meter.correlation,
            peak_dbfs=self.peak_dbfs,
            rounds=self._rounds,
            side_rounds=self._side_steps,
        )
        return rails, warnings(self._plan, rails, self._result, as_given=self.as_given)

    @property
    def peak_dbfs(self) -> float | None:
        """Highest sample so far; None for silence."""
        return 20.0 * math.log10(self.peak) if self.peak > 0.0 else None

    def process(self, block: Audio) -> Audio:
        """The block as it leaves; unchanged where there is nothing to do."""
        if self._side_gain != 1.0:
            both = mid_side(block)
            both[1] *= self._side_gain
            block = to_float32(left_right(both))
        if self._gain != 1.0:
            block = to_float32(block * np.float64(self._gain))
        self.meter.process(block)
        self.peak = max(self.peak, float(np.max(np.abs(block))))
        return block


def _report(plan: MixPlan, finish: _Finish, frames: int, plugins: PluginRack) -> MixReport:
    strips, (*buses, mixed) = finish.reports
    # The mix as it leaves, turned down to its peak target.
    turned = finish.trim_db - plan.trim_db
    mixed = replace(mixed, spectrum_after_db=tuple(level + turned for level in mixed.spectrum_after_db))
    rails, told = finish.rails()
    if finish.peak == 0.0:
        told = [Warning("SILENT_INPUT", "The mix is silent: so are all of its stems."), *told]
    return MixReport(
        engine=engine_info(CONSOLE),
        plan=plan,
        strips=strips,
        buses=(*buses, mixed),
        frames=frames,
        sample_peak_dbfs=finish.peak_dbfs,
        trim_db=finish.trim_db,
        correlation=finish.meter.correlation,
        warnings=(*told, *plugins.warnings()),
        plugins=tuple(PluginRun(one.name, one.version, one.digest, one.reason) for one in plugins.used()),
        rails=rails,
        masking=finish.masking,
        band_hertz=CENTRES_HERTZ,
        as_given=finish.as_given,
    )


def _check_stems(stems: Mapping[str, NDArray[Any]]) -> int:
    """Length of the stems."""
    lengths = {stem.shape[1] for stem in stems.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"stems must have one length, not {sorted(lengths)} frames", field="stems")
    for name, stem in stems.items():
        if stem.shape[0] not in (1, 2):
            raise InvalidInput(f"stem {name!r} has {stem.shape[0]} channels, must have 1 or 2", field="stems")
    return int(lengths.pop())


def _stereo_block(stem: NDArray[Any], start: int, size: int) -> Audio:
    """A block of a stem as stereo float32, zeros beyond its end."""
    piece = np.asarray(stem[:, start : start + size], np.float32)
    block = np.zeros((2, size), np.float32)
    block[:, : piece.shape[1]] = piece
    return block
