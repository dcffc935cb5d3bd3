"""The desk at work: strips and buses with their memory, one block at a time. ``mix`` drives it over a whole song."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.audio.chain import Chain
from outboard.audio.dynamics import Delay
from outboard.audio.filters import Audio, to_float32
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.stereo import StereoMeter, pan_gains
from services.mixer.check import MIX_NAME
from services.mixer.console import Bus, MaskingPair, MixPlan, Strip, StripReport
from services.mixer.masking import ErbMeter, Levels, indices, pairs, spectrum, summed

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
# Effects are faded out over this long at the end of the mix.
_FADE_SECONDS = 0.25


class _Meters:
    """What a strip or bus is judged by, on one side of it. Silence that delays put around the sound is gated out."""

    def __init__(self, sample_rate_hertz: int) -> None:
        self._stereo = StereoMeter()
        self._loudness = LoudnessMeter(sample_rate_hertz, 2)

    def process(self, block: NDArray[np.floating]) -> None:
        """Take in a stereo block."""
        self._stereo.process(block)
        self._loudness.process(to_float32(block))

    @property
    def mid_side_ratio_db(self) -> float | None:
        return self._stereo.mid_side_ratio_db

    @property
    def correlation(self) -> float | None:
        return self._stereo.correlation

    @property
    def integrated_lufs(self) -> float | None:
        return self._loudness.integrated_lufs


class _StripAtWork:
    """One strip: its chain, its delay to the slowest strip, its fader."""

    def __init__(self, strip: Strip, sample_rate_hertz: int, plugins: PluginRack | None) -> None:
        self.strip = strip
        self.chain = Chain(strip.chain, sample_rate_hertz, plugins)
        left, right = pan_gains(strip.pan, strip.pan_law)
        sign = -1.0 if strip.polarity_inverted else 1.0
        self._gains = sign * 10.0 ** (strip.gain_db / 20.0) * np.array([[left], [right]])
        self._points = (
            np.array([float(p.frame) for p in strip.envelope]),
            np.array([p.gain_db for p in strip.envelope]),
        )
        self.before = _Meters(sample_rate_hertz)
        touched = not self.chain.is_empty or np.any(self._gains != 1.0) or strip.envelope
        self.after = _Meters(sample_rate_hertz) if touched else self.before
        self._delay = Delay(2, 0)
        self._late = 0
        # At the fader's level, so that strips can be weighed against one another.
        self.bands_before, self.bands_after = ErbMeter(sample_rate_hertz), ErbMeter(sample_rate_hertz)
        self._early = 0
        self.at_fader: NDArray[np.float64] = np.zeros((2, 0))

    def align(self, latency_frames: int) -> None:
        """Delays this strip to the slowest one."""
        self._late = latency_frames
        self._delay = Delay(2, latency_frames - self.chain.latency_frames)

    def process(self, block: Audio, keys: Mapping[str, Audio], start: int) -> NDArray[np.float64]:
        """After the fader, float64."""
        self.before.process(block)
        self.at_fader = block * self._gains
        self.bands_before.process(self.at_fader)
        late = self._delay.process(self.chain.process(block, keys))
        out: NDArray[np.float64] = late * self._gains
        if self.strip.envelope:
            frames = start - self._late + np.arange(out.shape[1])
            out *= 10.0 ** (np.interp(frames, *self._points) / 20.0)
        if self.after is not self.before:
            self.after.process(out)
        # The delay is left out, so that both meters look at the same moments.
        skipped = min(self._late - self._early, out.shape[1])
        self._early += skipped
        self.bands_after.process(out[:, skipped:])
        return out

    def report(self, masking_before_index: float, masking_after_index: float) -> StripReport:
        """What it did so far."""
        return StripReport(
            name=self.strip.stem,
            gain_db=self.strip.gain_db,
            role=self.strip.role,
            spectrum_before_db=spectrum(self.bands_before.levels_db),
            spectrum_after_db=spectrum(self.bands_after.levels_db),
            correlation=self.after.correlation,
            masking_before_index=masking_before_index,
            masking_after_index=masking_after_index,
            processors=self.chain.reports(),
            mid_side_ratio_before_db=self.before.mid_side_ratio_db,
            mid_side_ratio_after_db=self.after.mid_side_ratio_db,
            integrated_before_lufs=self.before.integrated_lufs,
            integrated_after_lufs=self.after.integrated_lufs,
        )


class _BusAtWork:
    """One bus: its sidechain keys and its chain, its delay to the slowest bus, its fader."""

    def __init__(self, bus: Bus, sample_rate_hertz: int, key_delay_frames: int, plugins: PluginRack | None) -> None:
        self.bus = bus
        self.chain = Chain(bus.chain, sample_rate_hertz, plugins)
        self._gain = 10.0 ** (bus.gain_db / 20.0)
        self.before = _Meters(sample_rate_hertz)
        touched = not self.chain.is_empty or self._gain != 1.0
        self.after = _Meters(sample_rate_hertz) if touched else self.before
        # Of strips that are routed here, as they arrive on the mix: how buses cover one another.
        self.bands_after = ErbMeter(sample_rate_hertz)
        self._key_delay_frames = key_delay_frames
        self._late, self._early = key_delay_frames, 0
        self._keys = {name: Delay(2, key_delay_frames) for name in sorted(self.chain.key_names)}
        self._delay = Delay(2, 0)

    def align(self, latency_frames: int) -> None:
        """Delays this bus to the slowest one."""
        self._delay = Delay(2, latency_frames - self.chain.latency_frames)
        self._late = self._key_delay_frames + latency_frames

    def process(self, total: NDArray[np.float64], keys: Mapping[str, Audio]) -> NDArray[np.float64]:
        """After the fader, float64; ``keys`` are as early as the stems."""
        self.before.process(total)
        own_keys = {name: delay.process(keys[name]) for name, delay in self._keys.items()}
        late = self._delay.process(self.chain.process(to_float32(total), own_keys))
        out: NDArray[np.float64] = late * np.float64(self._gain)
        if self.after is not self.before:
            self.after.process(out)
        skipped = min(self._late - self._early, out.shape[1])
        self._early += skipped
        self.bands_after.process(out[:, skipped:])
        return out

    def fade(self, out: NDArray[np.float64], start: int, last_frame: int, fade_frames: int) -> None:
        """Takes the end of an effect down to silence at the end of the mix, where its tail would break off."""
        left = last_frame - (start - self._late + np.arange(out.shape[1]))
        if left[-1] < fade_frames:
            out *= np.sin(0.5 * np.pi * np.clip(left / fade_frames, 0.0, 1.0)) ** 2

    def report(self, masking_before_index: float | None, masking_after_index: float | None) -> StripReport:
        """What it did so far."""
        return StripReport(
            name=self.bus.name,
            gain_db=self.bus.gain_db,
            spectrum_after_db=spectrum(self.bands_after.levels_db),
            correlation=self.after.correlation,
            masking_before_index=masking_before_index,
            masking_after_index=masking_after_index,
            processors=self.chain.reports(),
            mid_side_ratio_before_db=self.before.mid_side_ratio_db,
            mid_side_ratio_after_db=self.after.mid_side_ratio_db,
            integrated_before_lufs=self.before.integrated_lufs,
            integrated_after_lufs=self.after.integrated_lufs,
        )


class Desk:
    """All strips and buses of a plan, and the mix bus behind them.

    Sidechain keys are stems before their chains, or buses as the plain sum of their strips' stems: nothing that is
    being processed can drive itself in a circle. The mix comes ``latency_frames`` late.

    Args:
        plan: its strips name the stems.
        sample_rate_hertz: of all stems.
        plugins: what runs the plan's plugins.
        frames: length of the mix, where the tails of effects are faded out; None: nowhere.
        each: applies a function to every part, as `map` does; a pool's `map` renders strips at once, with the same
            result.

    Raises:
        PluginFailed: here or in `process`, a plugin broke down; see `PluginRack.failed`.
    """

    def __init__(
        self,
        plan: MixPlan,
        sample_rate_hertz: int,
        plugins: PluginRack | None = None,
        frames: int | None = None,
        each: Each = map,
    ) -> None:
        self._frames, self._each = frames, each
        self._strips = [_StripAtWork(strip, sample_rate_hertz, plugins) for strip in plan.strips]
        strips_late = _slowest(strip.chain for strip in self._strips)
        for strip in self._strips:
            strip.align(strips_late)
        self._buses = [_BusAtWork(bus, sample_rate_hertz, strips_late, plugins) for bus in plan.buses]
        buses_late = _slowest(bus.chain for bus in self._buses)
        for bus in self._buses:
            bus.align(buses_late)
        self._direct = Delay(2, buses_late)
        mix_bus = Bus(MIX_NAME, plan.trim_db, plan.master_chain)
        self._mix = _BusAtWork(mix_bus, sample_rate_hertz, strips_late + buses_late, plugins)
        self._mix.align(self._mix.chain.latency_frames)
        self.latency_frames = strips_late + buses_late + self._mix.chain.latency_frames
        chains = [strip.chain for strip in self._strips] + [bus.chain for bus in (*self._buses, self._mix)]
        self._key_names = sorted({name for chain in chains for name in chain.key_names})
        self._effects = {send.bus for strip in plan.strips for send in strip.sends}
        self._fade_frames = int(_FADE_SECONDS * sample_rate_hertz)
        self.source = Source(plan, sample_rate_hertz)

    def process(self, blocks: Mapping[str, Audio], start: int) -> Audio:
        """The mix for the blocks ``(2, n)`` of all stems that begin at frame ``start``."""
        keys = {name: self._key(name, blocks) for name in self._key_names}
        frames = next(iter(blocks.values())).shape[1]
        sums = {name: np.zeros((2, frames)) for name in ("", *(bus.bus.name for bus in self._buses))}
        raw = {name: np.zeros((2, frames)) for name in sums}
        done = self._each(lambda strip: strip.process(blocks[strip.strip.stem], keys, start), self._strips)
        for strip, out in zip(self._strips, done, strict=True):
            raw[strip.strip.bus] += strip.at_fader
            sums[strip.strip.bus] += out
            for send in strip.strip.sends:
                sums[send.bus] += 10.0 ** (send.level_db / 20.0) * out
        heard = frames if self._frames is None else min(frames, self._frames - start)
        if heard > 0:  # the silence that brings late frames out is no part of the stems
            self.source.process({name: part[:, :heard] for name, part in raw.items()})
        # Unrouted strips keep their full precision; the delay is there for buses only.
        total = sums[""]
        if self._buses:
            total = np.asarray(self._direct.process(to_float32(total)), np.float64)
        parts = self._each(lambda bus: bus.process(sums[bus.bus.name], keys), self._buses)
        for bus, part in zip(self._buses, parts, strict=True):
            if bus.bus.name in self._effects and self._frames is not None:
                bus.fade(part, start, self._frames, min(self._fade_frames, self._frames // 4 + 1))
            total = total + part
        return to_float32(self._mix.process(total, keys))

    def _key(self, name: str, blocks: Mapping[str, Audio]) -> Audio:
        if name in blocks:
            return blocks[name]
        members = [blocks[strip.strip.stem] for strip in self._strips if strip.strip.bus == name]
        if not members:
            return np.zeros_like(next(iter(blocks.values())))
        return to_float32(np.asarray(np.sum(members, axis=0, dtype=np.float64)))

    def reports(self) -> tuple[tuple[StripReport, ...], tuple[StripReport, ...]]:
        """What strips and buses did so far; the mix is the last bus."""
        before, after = (indices(levels) for levels in self.strip_levels())
        names = [strip.strip.stem for strip in self._strips]
        buses_before, buses_after = (indices(levels) for levels in self.bus_levels())
        return (
            tuple(strip.report(before[name], after[name]) for strip, name in zip(self._strips, names, strict=True)),
            (
                *(bus.report(buses_before.get(bus.bus.name), buses_after.get(bus.bus.name)) for bus in self._buses),
                replace(
                    self._mix.report(None, None), spectrum_before_db=spectrum(summed(self.strip_levels()[0].values()))
                ),
            ),
        )

    def masking(self) -> tuple[MaskingPair, ...]:
        """How strips cover one another so far."""
        before, after = (pairs(levels) for levels in self.strip_levels())
        return tuple(MaskingPair(*pair, index, after[pair]) for pair, index in before.items())

    def strip_levels(self) -> tuple[dict[str, Levels], dict[str, Levels]]:
        """Auditory levels of every strip at its fader, before and after its chain."""
        return (
            {strip.strip.stem: strip.bands_before.levels_db for strip in self._strips},
            {strip.strip.stem: strip.bands_after.levels_db for strip in self._strips},
        )

    def bus_levels(self) -> tuple[dict[str, Levels], dict[str, Levels]]:
        """Auditory levels of every bus that strips are routed to: of their sum at the faders, and as it leaves."""
        before = self.source.bus_levels()
        return before, {bus.bus.name: bus.bands_after.levels_db for bus in self._buses if bus.bus.name in before}

    def loudness_lufs(self, bus: str) -> tuple[float | None, float | None]:
        """Of a bus: of its strips' sum at the faders before any processor, and as it leaves."""
        after = next((one.after.integrated_lufs for one in self._buses if one.bus.name == bus), None)
        return self.source.loudness_lufs(bus), after


class Source:
    """What the strips' stems are at their faders, before any processor: what the finished mix is held against."""

    def __init__(self, plan: MixPlan, sample_rate_hertz: int) -> None:
        routed = {strip.bus for strip in plan.strips if strip.bus}
        self._loudness = {name: LoudnessMeter(sample_rate_hertz, 2) for name in sorted(routed)}
        # Of the sum as it sounds: a separator's stems are partly alike, their powers do not add up.
        self._bands = {name: ErbMeter(sample_rate_hertz) for name in sorted(routed)}
        self.meter = StereoMeter()
        self.peak = 0.0

    def process(self, sums: Mapping[str, NDArray[np.float64]]) -> None:
        """Take in a block of every bus, and of what goes to the mix directly."""
        for name, meter in self._loudness.items():
            meter.process(to_float32(sums[name]))
            self._bands[name].process(sums[name])
        total = np.sum(list(sums.values()), axis=0)
        self.meter.process(total)
        self.peak = max(self.peak, float(np.max(np.abs(total), initial=0.0)))

    def loudness_lufs(self, bus: str) -> float | None:
        """Of one bus."""
        return self._loudness[bus].integrated_lufs if bus in self._loudness else None

    def bus_levels(self) -> dict[str, Levels]:
        """Auditory levels of every bus."""
        return {name: meter.levels_db for name, meter in self._bands.items()}

    @property
    def crest_factor_db(self) -> float | None:
        """Peak over RMS of the sum; None for silence."""
        return crest_factor_db(self.peak, self.meter)


def crest_factor_db(peak: float, meter: StereoMeter) -> float | None:
    """Peak over RMS in dB; None for silence."""
    rms = meter.rms_dbfs
    return 20.0 * math.log10(peak) - rms if rms is not None and peak > 0.0 else None


def _slowest(chains: Iterable[Chain]) -> int:
    return max((chain.latency_frames for chain in chains), default=0)
