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
from collections.abc import Generator, Mapping
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
from services.mixer.check import check_plan
from services.mixer.console import CONSOLE, MixPlan, MixReport, PluginRun, engine_info
from services.mixer.desk import Desk

# Frames per block inside: large enough for the FFT filters, small enough for twelve stems in the cache.
BLOCK_FRAMES = 16_384
MIN_CORRELATION = 0.1
# The correlation guard takes the sides down in steps of 0.5 dB, three at the most.
_GUARD_STEP_DB = 0.5
_GUARD_ROUNDS = 3
# Share of the work that is done when the spool is complete.
_RENDERED = 0.95
# A strip or bus that is turned down by more than this on average sounds pressed.
MAX_AVERAGE_REDUCTION_DB = 3.0


def mix(
    stems: Mapping[str, NDArray[Any]],
    sample_rate_hertz: int,
    plan: MixPlan,
    progress: Progress | None = None,
    *,
    spool_directory: Path | None = None,
    plugins: PluginRack | None = None,
) -> Generator[Audio, None, MixReport]:
    """Renders ``plan`` over ``stems``; yields the mix in order as blocks ``(2, n)`` and returns the report.

    Args:
        stems: name -> ``(channels, frames)`` with 1 or 2 channels, all of one length; memory maps are read in blocks.
        sample_rate_hertz: of all stems.
        plan: its strips name the stems.
        progress: called with the finished share at every block; may raise to cancel.
        spool_directory: a folder on a disk for the mix before its trim; None: the system's.
        plugins: what runs the plan's plugins, closed here; None: their stand-ins take their slots.

    Raises:
        InvalidInput: a plan that `check_plan` refuses, lengths that differ, channels that are neither mono nor stereo.
    """
    check_plan(plan, stems, sample_rate_hertz)
    frames = _check_stems(stems)
    tell = progress or (lambda fraction: None)
    with plugins or PluginRack(None) as rack, Spool(2, spool_directory) as spool:
        while True:
            try:
                desk = Desk(plan, sample_rate_hertz, rack)
                meter, peak = _render(desk, stems, frames, spool, lambda done: tell(_RENDERED * done))
                break
            except PluginFailed as error:
                rack.failed(error)
                spool.clear()
        rack.close()
        finish = _Finish(plan, meter, peak)
        rendered = spool.array
        for start in range(0, frames, BLOCK_FRAMES):
            yield finish.process(np.array(rendered[:, start : start + BLOCK_FRAMES]))
            tell(_RENDERED + (1.0 - _RENDERED) * min(1.0, (start + BLOCK_FRAMES) / frames))
    return _report(plan, desk, finish, frames, rack)


def _render(
    desk: Desk, stems: Mapping[str, NDArray[Any]], frames: int, spool: Spool, tell: Progress
) -> tuple[StereoMeter, float]:
    """The whole mix into the spool; what its sides and its peak are.

    Raises:
        PluginFailed: a plugin broke down on the way.
    """
    meter, peak = StereoMeter(), 0.0
    for start in range(0, frames + desk.latency_frames if frames else 0, BLOCK_FRAMES):
        block = desk.process({name: _stereo_block(stem, start) for name, stem in stems.items()}, start)
        early = max(0, desk.latency_frames - start)
        kept = block[:, early : early + frames - spool.frames]
        if kept.shape[1]:
            meter.process(kept)
            peak = max(peak, float(np.max(np.abs(kept))))
            spool.append(kept)
        tell(min(1.0, (start + BLOCK_FRAMES) / frames))
    return meter, peak


class _Finish:
    """What only the whole mix can tell: the trim to the peak target, and sides that mono listeners would lose."""

    def __init__(self, plan: MixPlan, meter: StereoMeter, peak: float) -> None:
        self.warnings: list[Warning] = []
        self.meter = StereoMeter()
        self.peak = 0.0
        self._side_gain = self._guard_correlation(meter) if plan.peak_target_dbfs is not None else 1.0
        self._gain = 1.0
        if plan.peak_target_dbfs is not None and peak > 0.0:
            # Narrower channels are blends of the wider ones, so the correlation guard raises no peak.
            self._gain = min(1.0, 10.0 ** (plan.peak_target_dbfs / 20.0) / peak)
        self.trim_db = plan.trim_db + 20.0 * math.log10(self._gain)

    def _guard_correlation(self, meter: StereoMeter) -> float:
        ratio_db = meter.mid_side_ratio_db
        if ratio_db is None:
            return 1.0
        for rounds in range(_GUARD_ROUNDS + 1):
            power_ratio = 10.0 ** ((ratio_db - rounds * _GUARD_STEP_DB) / 10.0)
            if (1.0 - power_ratio) / (1.0 + power_ratio) >= MIN_CORRELATION:
                break
        else:
            self.warnings.append(
                Warning("LOW_CORRELATION", f"left and right of the mix hardly correlate: side is at {ratio_db:.1f} dB")
            )
        return float(10.0 ** (-rounds * _GUARD_STEP_DB / 20.0))

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


def _report(plan: MixPlan, desk: Desk, finish: _Finish, frames: int, plugins: PluginRack) -> MixReport:
    strips, buses = desk.reports()
    warnings = [*finish.warnings, *plugins.warnings()]
    for part in (*strips, *buses):
        for processor in part.processors:
            if processor.average_gain_db is not None and processor.average_gain_db < -MAX_AVERAGE_REDUCTION_DB:
                text = f"{processor.label} on {part.name} turns down by {-processor.average_gain_db:.1f} dB on average"
                warnings.append(Warning("GAIN_REDUCTION_HIGH", text, part.name))
    return MixReport(
        engine=engine_info(CONSOLE),
        plan=plan,
        strips=strips,
        buses=buses,
        frames=frames,
        sample_peak_dbfs=20.0 * math.log10(finish.peak) if finish.peak > 0.0 else None,
        trim_db=finish.trim_db,
        correlation=finish.meter.correlation,
        warnings=tuple(warnings),
        plugins=tuple(PluginRun(one.name, one.version, one.digest, one.reason) for one in plugins.used()),
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


def _stereo_block(stem: NDArray[Any], start: int) -> Audio:
    """A block of a stem as stereo float32, zeros beyond its end."""
    piece = np.asarray(stem[:, start : start + BLOCK_FRAMES], np.float32)
    block = np.zeros((2, BLOCK_FRAMES), np.float32)
    block[:, : piece.shape[1]] = piece
    return block
