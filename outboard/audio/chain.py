"""A chain of processors at work on one stereo stream: strips, buses and the master are rendered by the same code.

Each slot takes a block and gives as many frames back, some of them late; ``latency_frames`` is the sum. Sidechain
keys are delayed by what the slots before have delayed the sound, so a key meets the frame that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outboard.audio import (
    band_extension,
    chorus,
    de_esser,
    dynamic_eq,
    dynamics,
    echo,
    expander,
    filters,
    fir,
    multiband,
    reverb,
    saturation,
    stereo,
    transients,
    unmasking,
)
from outboard.audio.filters import Audio, Sos, SosFilter
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.processors import (
    BandExtender,
    Chorus,
    Compressor,
    CurveEqualizer,
    DeEsser,
    Delay,
    DynamicEqualizer,
    Equalizer,
    Expander,
    FilterBand,
    LinearPhaseEqualizer,
    MinimumPhaseEqualizer,
    MultibandCompressor,
    Plugin,
    Processor,
    ProcessorKind,
    ProcessorReport,
    Reverb,
    Saturator,
    StereoField,
    StereoWidth,
    TransientShaper,
    Unmasker,
    member_name,
)

Keys = Mapping[str, Audio]

_NULL_DC_BELOW_DB = -40.0


class _Slot:
    """A processor that looks at nothing but its own signal and reports no gain."""

    latency_frames = 0
    key_names: tuple[str, ...] = ()
    ran = ""
    """What takes the slot, where it is not the native processor of the plan."""

    def __init__(self, process: Callable[[Audio], Audio], latency_frames: int = 0) -> None:
        self._process = process
        self.latency_frames = latency_frames

    def process(self, block: Audio, keys: Keys) -> Audio:
        return self._process(block)

    def gains_db(self) -> tuple[float | None, float | None]:
        """Mean and furthest gain."""
        return None, None


class _CompressorSlot(_Slot):
    def __init__(self, settings: Compressor, sample_rate_hertz: int) -> None:
        self._at_work = dynamics.Compressor(settings, sample_rate_hertz, 2)
        self.latency_frames = self._at_work.latency_frames
        self.key_names = (settings.sidechain,) if settings.sidechain else ()

    def process(self, block: Audio, keys: Keys) -> Audio:
        return self._at_work.process(block, keys[self.key_names[0]] if self.key_names else None)

    def gains_db(self) -> tuple[float | None, float | None]:
        return -self._at_work.average_gain_reduction_db, -self._at_work.max_gain_reduction_db


class _DynamicEqualizerSlot(_Slot):
    def __init__(self, settings: DynamicEqualizer, sample_rate_hertz: int) -> None:
        self._bands = [dynamic_eq.DynamicBand(band, sample_rate_hertz, 2) for band in settings.bands]
        self.key_names = tuple(sorted({band.sidechain for band in settings.bands if band.sidechain}))
        # A band's key waits for what the bands before it have delayed the sound.
        self._key_delays = []
        for band in self._bands:
            self._key_delays.append(dynamics.Delay(2, self.latency_frames))
            self.latency_frames += band.latency_frames

    def process(self, block: Audio, keys: Keys) -> Audio:
        for band, delay in zip(self._bands, self._key_delays, strict=True):
            name = band.settings.sidechain
            block = band.process(block, delay.process(keys[name]) if name else None)
        return block

    def gains_db(self) -> tuple[float | None, float | None]:
        if not self._bands:
            return None, None
        most = max(self._bands, key=lambda band: abs(band.average_gain_db))
        return most.average_gain_db, max((b.extreme_gain_db for b in self._bands), key=abs)


class _MovingGain(Protocol):
    """A processor that follows its own signal and tells how far it moved it."""

    def process(self, block: Audio) -> Audio: ...
    @property
    def average_gain_db(self) -> float: ...
    @property
    def extreme_gain_db(self) -> float: ...


class _GainSlot(_Slot):
    def __init__(self, at_work: _MovingGain, latency_frames: int = 0) -> None:
        super().__init__(at_work.process, latency_frames)
        self._at_work = at_work

    def gains_db(self) -> tuple[float | None, float | None]:
        return self._at_work.average_gain_db, self._at_work.extreme_gain_db


class _KeyedSlot(_Slot):
    """An expander or unmasker, driven by itself or by another sound."""

    def __init__(self, settings: Expander | Unmasker, sample_rate_hertz: int) -> None:
        self._at_work = (
            expander.Expander(settings, sample_rate_hertz, 2)
            if isinstance(settings, Expander)
            else unmasking.Unmasker(settings, sample_rate_hertz, 2)
        )
        self.latency_frames = self._at_work.latency_frames
        self.key_names = (settings.sidechain,) if settings.sidechain else ()

    def process(self, block: Audio, keys: Keys) -> Audio:
        return self._at_work.process(block, keys[self.key_names[0]] if self.key_names else None)

    def gains_db(self) -> tuple[float | None, float | None]:
        return self._at_work.average_gain_db, self._at_work.extreme_gain_db


def filter_sections(band: FilterBand, sample_rate_hertz: int) -> Sos:
    """Second-order sections of one filter of an equaliser."""
    if band.shape == "peak":
        return filters.peaking(band.frequency_hertz, band.gain_db, band.q, sample_rate_hertz)
    if band.shape == "low_shelf":
        return filters.low_shelf(band.frequency_hertz, band.gain_db, sample_rate_hertz, band.q)
    if band.shape == "high_shelf":
        return filters.high_shelf(band.frequency_hertz, band.gain_db, sample_rate_hertz, band.q)
    if band.shape == "notch":
        return filters.notch(band.frequency_hertz, band.q, sample_rate_hertz)
    if band.shape == "high_pass":
        return filters.butterworth_high_pass(band.frequency_hertz, sample_rate_hertz, band.order)
    if band.shape == "low_pass":
        return filters.butterworth_low_pass(band.frequency_hertz, sample_rate_hertz, band.order)
    raise ValueError(f"unknown filter shape {band.shape!r}")


def curve_taps(settings: CurveEqualizer, sample_rate_hertz: int) -> NDArray[np.float64]:
    """Taps of an equaliser; points above Nyquist say nothing, and a linear-phase curve that falls by 40 dB and more at
    its lower end means to remove DC.
    """
    points = [point for point in settings.points if point.frequency_hertz < 0.5 * sample_rate_hertz]
    gains = [point.gain_db for point in points]
    hertz = [point.frequency_hertz for point in points]
    if isinstance(settings, MinimumPhaseEqualizer):
        return fir.minimum_phase_taps(hertz, gains, sample_rate_hertz, taps=settings.taps)
    return fir.linear_phase_taps(
        hertz, gains, sample_rate_hertz, taps=settings.taps, null_dc=bool(gains) and gains[0] <= _NULL_DC_BELOW_DB
    )


def _plugin_slot(kind: Plugin, sample_rate_hertz: int, plugins: PluginRack) -> _Slot:
    """The plugin in its process, or what stands in for it."""
    hosted = plugins.open(kind, sample_rate_hertz)
    facts = plugins.facts(kind.name)
    if hosted is not None:
        slot, ran = _Slot(hosted.process, hosted.latency_frames), f"{facts.name} {facts.version}"
    elif kind.stand_in is not None:
        slot = _slot(kind.stand_in.kind, sample_rate_hertz, plugins)
        ran = f"{member_name(kind.stand_in.kind)} in place of {kind.name}"
    else:
        slot, ran = _Slot(lambda block: block), f"nothing in place of {kind.name}"
    slot.ran = ran
    return slot


def _slot(kind: ProcessorKind, sample_rate_hertz: int, plugins: PluginRack) -> _Slot:
    if isinstance(kind, Equalizer):
        sections = [filter_sections(band, sample_rate_hertz) for band in kind.bands]
        return _Slot(SosFilter(np.concatenate([np.empty((0, 6)), *sections]), 2).process)
    if isinstance(kind, LinearPhaseEqualizer | MinimumPhaseEqualizer):
        convolver = fir.DelayedConvolver(curve_taps(kind, sample_rate_hertz), 2)
        return _Slot(convolver.process, convolver.latency_frames)
    if isinstance(kind, DynamicEqualizer):
        return _DynamicEqualizerSlot(kind, sample_rate_hertz)
    if isinstance(kind, Compressor):
        return _CompressorSlot(kind, sample_rate_hertz)
    if isinstance(kind, MultibandCompressor):
        bands = multiband.MultibandCompressor(kind.bands, sample_rate_hertz, 2)
        return _GainSlot(bands, bands.latency_frames)
    if isinstance(kind, Saturator):
        saturator = saturation.Saturator(kind, sample_rate_hertz, 2)
        return _Slot(saturator.process, saturator.latency_frames)
    if isinstance(kind, TransientShaper):
        return _GainSlot(transients.TransientShaper(kind, sample_rate_hertz))
    if isinstance(kind, StereoWidth):
        return _Slot(stereo.Width(kind, sample_rate_hertz).process)
    if isinstance(kind, StereoField):
        field = stereo.StereoFieldFilter(kind.bands, sample_rate_hertz)
        return _Slot(field.process, field.latency_frames)
    if isinstance(kind, BandExtender):
        extension = band_extension.BandExtension(kind, sample_rate_hertz, 2)
        return _Slot(extension.process, extension.latency_frames)
    if isinstance(kind, DeEsser):
        smooth = de_esser.DeEsser(kind, sample_rate_hertz, 2)
        return _GainSlot(smooth, smooth.latency_frames)
    if isinstance(kind, Expander | Unmasker):
        return _KeyedSlot(kind, sample_rate_hertz)
    if isinstance(kind, Delay):
        return _Slot(echo.Echo(kind, sample_rate_hertz).process)
    if isinstance(kind, Reverb):
        return _Slot(reverb.Reverb(kind, sample_rate_hertz).process)
    if isinstance(kind, Chorus):
        return _Slot(chorus.Chorus(kind, sample_rate_hertz).process)
    if isinstance(kind, Plugin):
        return _plugin_slot(kind, sample_rate_hertz, plugins)
    raise TypeError(f"no renderer for {type(kind).__name__}")


class Chain:
    """Processors in series on a stereo stream; bypassed ones are not there at all (an empty chain is exact).

    Args:
        processors: the slots in order.
        sample_rate_hertz: of the stream.
        plugins: what runs the plugins among them; None: stand-ins take their slots. It is closed by its owner.

    Raises:
        PluginFailed: a plugin broke down as it was started; see `PluginRack.failed`.
    """

    def __init__(
        self, processors: Iterable[Processor], sample_rate_hertz: int, plugins: PluginRack | None = None
    ) -> None:
        rack = plugins or PluginRack(None)
        self._labels: list[str] = []
        self._slots: list[_Slot] = []
        self._key_delays: list[dict[str, dynamics.Delay]] = []
        self.latency_frames = 0
        for processor in processors:
            if processor.bypass:
                continue
            slot = _slot(processor.kind, sample_rate_hertz, rack)
            self._labels.append(processor.label)
            self._slots.append(slot)
            self._key_delays.append({name: dynamics.Delay(2, self.latency_frames) for name in slot.key_names})
            self.latency_frames += slot.latency_frames

    @property
    def slots(self) -> int:
        """How many processors are in the path."""
        return len(self._slots)

    @property
    def is_empty(self) -> bool:
        """Whether sound passes through unchanged."""
        return not self._slots

    @property
    def key_names(self) -> frozenset[str]:
        """Names of the sidechain signals that ``process`` must be given."""
        return frozenset(name for delays in self._key_delays for name in delays)

    def process(self, block: Audio, keys: Keys | None = None) -> Audio:
        """As many frames as the stereo ``block`` ``(2, frames)`` has, ``latency_frames`` late.

        Args:
            keys: for every name in ``key_names`` the stereo block of the same frames.
        """
        given: Mapping[str, NDArray[Any]] = keys or {}
        for slot, delays in zip(self._slots, self._key_delays, strict=True):
            block = slot.process(block, {name: delay.process(given[name]) for name, delay in delays.items()})
        return block

    def reports(self) -> tuple[ProcessorReport, ...]:
        """What each active slot has done so far."""
        return tuple(
            ProcessorReport(label, *slot.gains_db(), ran=slot.ran)
            for label, slot in zip(self._labels, self._slots, strict=True)
        )
