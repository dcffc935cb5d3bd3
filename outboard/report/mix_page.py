"""What the console did, for people: tables of strips and buses, the masking matrix, and spectra before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from outboard.report.html import KEY, items, section, table
from outboard.report.svg import Plot, decibel_axis, frequency_axis, heat_map
from outboard.v1 import audio_pb2, mixer_service_pb2, processor_pb2

_SPAN_DB = 60.0
_UNKNOWN = "–"


def mix_sections(mix: mixer_service_pb2.MixReport) -> str:
    """The sections of a page that tell of a mix; empty for a report that tells of none."""
    if not mix.strips:
        return ""
    keys = _sidechains(mix.plan)
    parts = [
        section("Mix", f'<p class="soft">{_summary(mix)}</p>' + items(mix.plan.notes)),
        section("Strips", _parts(mix.strips)),
        section("Buses", _parts(mix.buses)),
        section("Guard-rails of the mix", _rails(mix)),
        section("Gain reduction of the mix", _processors((*mix.strips, *mix.buses), keys)),
        section("Plugins", _plugins(mix.plugins)),
        section("Masking", _matrix(mix)),
        section("Spectra of the mix", _spectra(mix)),
    ]
    return "".join(parts)


def _summary(mix: mixer_service_pb2.MixReport) -> str:
    peak = f"{mix.sample_peak_dbfs:.1f} dBFS" if mix.HasField("sample_peak_dbfs") else "silent"
    correlation = f"; correlation {mix.correlation:.2f}" if mix.HasField("correlation") else ""
    return (
        f"Engine {escape(mix.engine.name)} {mix.engine.version}; trim {mix.trim_db:+.1f} dB, peak {peak}{correlation}."
    )


def _parts(parts: Sequence[mixer_service_pb2.StripReport]) -> str:
    head = (
        "", "role", "fader", "loudness before", "after", "side/mid before", "after", "correlation", "masked before",
        "after",
    )  # fmt: skip
    rows = []
    for part in parts:
        role = audio_pb2.Role.Name(part.role).removeprefix("ROLE_").lower() if part.role else ""
        cells = (
            _number(part, "integrated_before_lufs", "{:.1f} LUFS"),
            _number(part, "integrated_after_lufs", "{:.1f} LUFS"),
            _number(part, "mid_side_ratio_before_db", "{:.1f} dB"),
            _number(part, "mid_side_ratio_after_db", "{:.1f} dB"),
            _number(part, "correlation", "{:.2f}"),
            _number(part, "masking_before_index", "{:.0%}"),
            _number(part, "masking_after_index", "{:.0%}"),
        )
        rows.append((part.name, role.replace("_", " "), f"{part.gain_db:+.1f} dB", *cells))
    return table(head, rows) if rows else ""


def _number(part: mixer_service_pb2.StripReport, field: str, form: str) -> str:
    return form.format(getattr(part, field)) if part.HasField(field) else _UNKNOWN  # type: ignore[arg-type]


def _rails(mix: mixer_service_pb2.MixReport) -> str:
    """Every guard-rail with what was measured; of a plan of one's own that none was met for it."""
    if not mix.rails:
        return ""
    rows = [
        (
            rail.name.replace("_", " "),
            f"{rail.value:.2f} {rail.unit}".rstrip(),
            f"{rail.limit:g} {rail.unit}".rstrip(),
            "holds" if rail.held else "missed",
            str(rail.rounds or ""),
        )
        for rail in mix.rails
    ]
    given = "The plan was given and is rendered as it is: what it misses is told, and not corrected."
    text = f'<p class="soft">{given}</p>' if mix.as_given else ""
    return text + table(("", "measured", "limit", "", "corrections"), rows)


def _processors(parts: Iterable[mixer_service_pb2.StripReport], keys: Mapping[tuple[str, str], str]) -> str:
    """Every processor that moved a gain, with what drove it where that was another strip."""
    rows = []
    for part in parts:
        for processor in part.processors:
            if not processor.HasField("average_gain_db"):
                continue
            extreme = f"{processor.extreme_gain_db:+.1f} dB" if processor.HasField("extreme_gain_db") else _UNKNOWN
            key = keys.get((part.name, processor.label), "")
            rows.append((part.name, processor.label, key, f"{processor.average_gain_db:+.2f} dB", extreme))
    return table(("", "processor", "driven by", "average gain", "furthest gain"), rows) if rows else ""


def _sidechains(plan: mixer_service_pb2.MixPlan) -> dict[tuple[str, str], str]:
    """What drives a processor, by part and label."""
    chains = [(strip.stem, strip.chain) for strip in plan.strips] + [(bus.name, bus.chain) for bus in plan.buses]
    found = {}
    for name, chain in (*chains, ("mix", plan.master_chain)):
        for processor in chain:
            if key := _key_of(processor):
                found[name, processor.label] = key
    return found


def _key_of(processor: processor_pb2.Processor) -> str:
    if processor.HasField("compressor"):
        return processor.compressor.sidechain
    if processor.HasField("expander"):
        return processor.expander.sidechain
    bands = processor.dynamic_equalizer.bands if processor.HasField("dynamic_equalizer") else ()
    return ", ".join(sorted({band.sidechain for band in bands if band.sidechain}))


def _plugins(plugins: Iterable[mixer_service_pb2.PluginRun]) -> str:
    rows = [
        (run.name, run.version or _UNKNOWN, "ran" if not run.reason else f"its stand-in ran: {run.reason}")
        for run in plugins
    ]
    return table(("plugin", "version", ""), rows) if rows else ""


def _matrix(mix: mixer_service_pb2.MixReport) -> str:
    """Both sides of the matrix: a row per strip that covers, a column per strip that is covered."""
    names = [strip.name for strip in mix.strips]
    if len(names) < 2 or not mix.masking:
        return ""
    pairs = {(pair.masker, pair.masked): pair for pair in mix.masking}
    maps = []
    for title, field in (("Masking before", "before_index"), ("Masking after", "after_index")):
        values = [
            [getattr(pairs[row, column], field) if (row, column) in pairs else None for column in names]
            for row in names
        ]
        maps.append(f"<figure><figcaption>{title}</figcaption>{heat_map(title, names, names, values)}</figure>")
    text = "How much of the loudness of each strip (column) every other one (row) covers by itself, in percent."
    return f'<p class="soft">{text}</p><div class="pair">{"".join(maps)}</div>'


def _spectra(mix: mixer_service_pb2.MixReport) -> str:
    """The mix, and below it every strip."""
    parts = [*mix.buses[-1:], *mix.strips]
    plots = [(part.name, _spectrum(mix.band_hertz, part)) for part in parts]
    drawn = [f"<figure><figcaption>{escape(name)}</figcaption>{plot}</figure>" for name, plot in plots if plot]
    if not drawn:
        return ""
    key = KEY.format(more=" · mean level in auditory bands, dBFS over hertz")
    strips = f"<details><summary>Every strip</summary>{''.join(drawn[1:])}</details>" if drawn[1:] else ""
    return key + drawn[0] + strips


def _spectrum(hertz: Sequence[float], part: mixer_service_pb2.StripReport) -> str:
    before, after = list(part.spectrum_before_db), list(part.spectrum_after_db)
    if not before or not after:
        return ""
    highest = max(*before, *after)
    values = [max(value, highest - _SPAN_DB) for value in (*before, *after)]
    plot = Plot(f"Spectrum of {part.name}", frequency_axis(), decibel_axis(values))
    plot.line(list(zip(hertz, before, strict=True)), "before")
    plot.line(list(zip(hertz, after, strict=True)), "after")
    return plot.render()
