"""The report's plots: what is drawn on which axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from outboard.report.comparison import Comparison, Curves
from outboard.report.html import KEY
from outboard.report.svg import Axis, Plot, Point, decibel_axis, frequency_axis, time_axis
from outboard.v1 import analysis_pb2, master_service_pb2

_SHORTEST_PLOT_SECONDS = 0.5
_WITH_TARGET = ' · <b class="target">target</b>'


def spectrum(
    before: analysis_pb2.Analysis, after: analysis_pb2.Analysis, mastering: master_service_pb2.MasteringReport
) -> str:
    """Third-octave levels before, after, and where they were to go."""
    was, now = _levels(before.third_octaves), _levels(after.third_octaves)
    if not was and not now:
        return ""
    bands = mastering.plan.match.bands
    if bands and now:
        # A match's levels count from loudness, the analysis's from the whole: they are laid over each other.
        offset = _mean([level for _, level in now]) - _mean([band.after_db for band in bands])
        wanted = [(band.frequency_hertz, band.target_db + offset) for band in bands]
    else:
        wanted = [(sqrt(band.low_hertz * band.high_hertz), band.target_db) for band in before.third_octaves]
    everything = [level for _, level in (*was, *now, *wanted)]
    plot = Plot("Spectrum in thirds of an octave", frequency_axis(), decibel_axis(_within(everything, 60.0)))
    plot.line(wanted, "target")
    plot.line(was, "before")
    plot.line(now, "after")
    return KEY.format(more=f"{_WITH_TARGET} · dB over hertz") + plot.render()


def loudness(comparison: Comparison, mastering: master_service_pb2.MasteringReport) -> str:
    """Short-term loudness of both sides."""
    sides = (comparison.before, comparison.after)
    values = [value for side in sides for value in side.short_term_lufs if value is not None]
    if not values:
        return ""
    plan = mastering.plan
    target = [plan.target_lufs] if plan.HasField("target_lufs") else []
    plot = Plot("Short-term loudness", _time(comparison), decibel_axis(_within([*values, *target], 30.0), 3.0))
    plot.mark(_starts(comparison))
    for level in target:
        plot.level(level, "target")
    for side, kind in zip(sides, ("before", "after"), strict=True):
        plot.line(_over_time(side, side.short_term_lufs), kind)
    return KEY.format(more=(_WITH_TARGET if target else "") + " · LUFS over 3 s") + plot.render()


def limiting(comparison: Comparison, mastering: master_service_pb2.MasteringReport) -> str:
    """The limiter's gain reduction over time."""
    reductions = mastering.limiting_db
    axis = _time(comparison)
    if not reductions or max(reductions) < 0.05:
        return ""
    high = max(3.0, max(reductions))
    plot = Plot("Gain reduction of the limiter", axis, decibel_axis([0.0, high], 1.0, least_span=3.0))
    step = axis.high / len(reductions)
    plot.band([((index + 0.5) * step, 0.0, value) for index, value in enumerate(reductions)], "limiting")
    return f'<p class="key">dB; mean {mastering.average_limiting_db:.2f} dB</p>' + plot.render()


def waveform(comparison: Comparison) -> str:
    """Extremes of the samples of both sides."""
    peak = max((abs(v) for side in (comparison.before, comparison.after) for v in (*side.low, *side.high)), default=0.0)
    if peak == 0.0:
        return ""
    limit = max(1.0, peak)
    plot = Plot("Waveform", _time(comparison), Axis(-limit, limit, (-1.0, -0.5, 0.0, 0.5, 1.0)))
    for side, kind in ((comparison.after, "after"), (comparison.before, "before")):
        points = zip(_places(side), side.low, side.high, strict=True)
        plot.band([(place, low, high) for place, low, high in points], kind)
    return KEY.format(more=" · share of full scale") + plot.render()


def stereo_field(before: analysis_pb2.Analysis, after: analysis_pb2.Analysis) -> str:
    """Side over mid by frequency."""
    was, now = _widths(before), _widths(after)
    if not was and not now:
        return ""
    levels = _within([level for _, level in (*was, *now)], 40.0)
    plot = Plot("Side over mid by frequency", frequency_axis(), decibel_axis(levels))
    plot.line(was, "before")
    plot.line(now, "after")
    return KEY.format(more=" · side over mid, dB over hertz") + plot.render()


def correlation(comparison: Comparison) -> str:
    """Correlation of left and right over time."""
    sides = (comparison.before, comparison.after)
    if all(value is None or value > 0.999 for side in sides for value in side.correlation):
        return ""
    plot = Plot("Correlation of left and right", _time(comparison), Axis(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0)))
    plot.mark(_starts(comparison))
    for side, kind in zip(sides, ("before", "after"), strict=True):
        plot.line(_over_time(side, side.correlation), kind)
    return KEY.format(more=" · correlation, 1 is mono") + plot.render()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _levels(bands: Sequence[analysis_pb2.BandLevel]) -> list[tuple[float, float]]:
    return [(sqrt(band.low_hertz * band.high_hertz), band.level_db) for band in bands]


def _widths(analysis: analysis_pb2.Analysis) -> list[tuple[float, float]]:
    return [(sqrt(band.low_hertz * band.high_hertz), band.mid_side_ratio_db) for band in analysis.stereo_bands]


def _within(values: Sequence[float | None], span: float) -> list[float]:
    """Values not further below the highest than `span`: a plot must not be ruled by an empty band."""
    known = [value for value in values if value is not None]
    highest = max(known, default=0.0)
    return [max(value, highest - span) for value in known]


def _time(comparison: Comparison) -> Axis:
    end = comparison.sections[-1].end_seconds if comparison.sections else 0.0
    return time_axis(max(end, _SHORTEST_PLOT_SECONDS))


def _starts(comparison: Comparison) -> list[float]:
    return [section.start_seconds for section in comparison.sections[1:]]


def _places(side: Curves) -> list[float]:
    return [(index + 0.5) * side.column_seconds for index in range(len(side.low))]


def _over_time(side: Curves, values: Sequence[float | None]) -> list[Point]:
    return list(zip(_places(side), values, strict=True))
