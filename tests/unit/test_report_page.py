"""The report page: self-contained, escaped, complete; its curves are bounded and independent of cutting."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.loudness import measure_loudness
from outboard.report.comparison import Comparison
from outboard.report.curves import MOST_COLUMNS, MOST_SECTIONS, compare_over_time
from outboard.report.page import render, render_mix
from outboard.report.svg import Axis, Plot, clock, decibel_axis, time_axis
from outboard.v1 import job_service_pb2, master_service_pb2, mixer_service_pb2, restorer_service_pb2

RATE_HERTZ = 48_000
Array = NDArray[np.float32]


def parts(seconds: float = 15.0) -> Array:
    """Three parts that differ plainly: quiet bass, loud noise, quiet bass."""
    generator = np.random.default_rng(5)
    frames = round(seconds * RATE_HERTZ)
    bass = 0.1 * np.sin(2.0 * np.pi * 80.0 * np.arange(frames) / RATE_HERTZ)
    noise = 0.2 * generator.standard_normal((2, frames))
    return np.concatenate([np.stack([bass, bass]), noise, np.stack([bass, bass])], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """A song against itself, 6 dB louder."""
    song = parts()
    return compare_over_time(song, song * np.float32(2.0), RATE_HERTZ, lambda fraction: None)


def test_sections_begin_where_the_sound_changes(comparison: Comparison) -> None:
    """Two changes at 15 and 30 s are found within 1.5 s; 6 dB more are told in every section."""
    starts = [section.start_seconds for section in comparison.sections]
    assert starts == pytest.approx([0.0, 15.0, 30.0], abs=1.5), starts
    assert comparison.sections[-1].end_seconds == pytest.approx(45.0, abs=0.05)
    for section in comparison.sections:
        assert section.before.lufs is not None
        assert section.after.lufs == pytest.approx(section.before.lufs + 6.02, abs=0.05)
        assert section.after.crest_db == pytest.approx(section.before.crest_db, abs=0.05)


def test_short_term_loudness_agrees_with_the_meter(comparison: Comparison) -> None:
    """The loudest column is the meter's largest short-term loudness, within 0.2 LU (columns are 100 ms)."""
    meter = measure_loudness(parts(), RATE_HERTZ)
    assert meter is not None
    loudest = max(value for value in comparison.before.short_term_lufs if value is not None)
    assert loudest == pytest.approx(meter.max_short_term_lufs, abs=0.2)


@pytest.mark.parametrize("frames", [0, 1, 100, 30_000, 200_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length_has_curves(frames: int, channels: int) -> None:
    """Nothing, a sample, a fraction of a second, silence: curves of equal lengths, no figures, and a page."""
    silence = np.zeros((channels, frames), np.float32)
    found = compare_over_time(silence, silence, RATE_HERTZ, lambda fraction: None)
    assert len(found.before.low) == len(found.before.short_term_lufs) == len(found.after.correlation)
    assert all(section.before.lufs is None for section in found.sections)
    assert render(job_service_pb2.JobReport(), found, title="").startswith("<!doctype html>")


def test_long_songs_have_no_more_columns() -> None:
    """Five minutes give as many columns and no more sections than allowed; progress ends at 1."""
    quiet = 0.01 * np.random.default_rng(6).standard_normal((1, 300 * 8000)).astype(np.float32)
    seen: list[float] = []
    found = compare_over_time(quiet, quiet, 8000, seen.append)
    assert len(found.before.low) <= MOST_COLUMNS + 1
    assert len(found.sections) <= MOST_SECTIONS
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_comparison_survives_json(comparison: Comparison) -> None:
    """Stored as JSON and read again, it is the same."""
    assert Comparison.from_fields(json.loads(json.dumps(dataclasses.asdict(comparison)))) == comparison


class _Loads(HTMLParser):
    """Gathers what a page would fetch, and the depth of tags."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "polyline", "polygon", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def report() -> job_service_pb2.JobReport:
    """A report with something in every block, and hostile texts."""
    made = job_service_pb2.JobReport()
    for index, analysis in enumerate((made.before, made.after)):
        analysis.integrated_lufs = -18.0 + 4.0 * index
        for octave in range(10):
            low = 31.5 * 2.0**octave
            analysis.third_octaves.add(
                low_hertz=low * 0.9, high_hertz=low * 1.1, level_db=-20.0 - octave + index, target_db=-20.0 - octave
            )
            analysis.stereo_bands.add(low_hertz=low * 0.9, high_hertz=low * 1.1, mid_side_ratio_db=-10.0 - octave)
    mastering = made.mastering
    mastering.plan.target_lufs = -14.0
    mastering.plan.ceiling_dbtp = -1.0
    mastering.decisions.extend(["One decision.", "<script>alert(1)</script>"])
    mastering.limiting_db.extend([0.0, 1.5, 0.3])
    mastering.average_limiting_db = 0.6
    mastering.checks.add(name="TRUE_PEAK", passed=True, value=-1.02, limit=-0.95, unit="dBTP", message="Peak.")
    mastering.checks.add(name="LOUDNESS", passed=False, value=-13.0, limit=-14.0, unit="LUFS", message="Off.")
    mastering.deliverables.add(name="master.wav", size_bytes=1000, integrated_lufs=-14.0, true_peak_dbtp=-1.02)
    made.warnings.add(code="X", message="Mind <b>this</b>.")
    return made


def test_page_is_complete_and_loads_nothing_but_the_preview(comparison: Comparison) -> None:
    """Six plots, every block, verdicts; no address is fetched, no script runs, tags are balanced."""
    page = render(report(), comparison, title='A "song" & <more>', preview="preview_ab.mp3")
    reader = _Loads()
    reader.feed(page)
    assert reader.loaded == ["preview_ab.mp3"]
    assert reader.open == []
    assert page.count("<svg") == 6
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "A &quot;song&quot; &amp; &lt;more&gt;" in page
    for heading in ("Decisions", "Checks", "Warnings", "Spectrum", "Limiting", "Section by section", "Files"):
        assert f"<h2>{heading}</h2>" in page, heading
    assert page.count("FAIL") == 1
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "nan" not in page.lower().replace("nano", "")


def test_lines_break_where_nothing_was_measured() -> None:
    """A gap in the values is a gap in the line, and values out of range stay inside the plot."""
    plot = Plot("p", Axis(0.0, 3.0, (0.0, 3.0)), decibel_axis([-10.0, 0.0]))
    plot.line([(0.0, -3.0), (1.0, None), (2.0, -3.0), (3.0, 1000.0)], "after")
    assert plot.render().count("<polyline") == 2
    assert "-" not in "".join(re.findall(r'points="([^"]*)"', plot.render()))


def test_axes_have_few_and_round_ticks() -> None:
    """A minute, an hour and a wide range of decibels have at most ten ticks; times read as minutes and seconds."""
    for seconds in (0.5, 60.0, 177.0, 3600.0, 36_000.0):
        assert len(time_axis(seconds).ticks) <= 11, seconds
    assert len(decibel_axis([-90.0, 3.0]).ticks) <= 10
    assert clock(125.4) == "2:05"


def test_mastering_without_a_limiter_or_target_has_no_empty_plots(comparison: Comparison) -> None:
    """What was not measured is left out."""
    bare = job_service_pb2.JobReport(mastering=master_service_pb2.MasteringReport())
    page = render(bare, comparison, title="bare")
    assert "<h2>Limiting</h2>" not in page
    assert "<h2>Spectrum</h2>" not in page
    assert 'class="line target"' not in page


def _mix_report() -> mixer_service_pb2.MixReport:
    """A mix of two strips whose names must be escaped, with all that the page shows."""
    names = ("lead <b>vox</b>", "keys & pads")
    report = mixer_service_pb2.MixReport(engine={"name": "console", "version": 5}, sample_peak_dbfs=-6.0)
    report.correlation = 0.72
    report.band_hertz.extend([100.0, 1000.0, 8000.0])
    for name, role in zip(names, ("ROLE_LEAD_VOCAL", "ROLE_KEYS"), strict=True):
        strip = report.strips.add(name=name, role=role, gain_db=-2.5, masking_before_index=0.4, masking_after_index=0.3)
        strip.processors.add(label="masking", average_gain_db=-1.25, extreme_gain_db=-3.5)
        strip.spectrum_before_db.extend([-20.0, -30.0, -120.0])
        strip.spectrum_after_db.extend([-22.0, -31.0, -119.0])
    key = report.plan.strips.add(stem=names[1]).chain.add(label="masking")
    key.dynamic_equalizer.bands.add(sidechain=names[0])
    report.plan.notes.append("keys & pads gives way.")
    mix = report.buses.add(name="mix")
    mix.spectrum_before_db.extend([-18.0, -28.0, -40.0])
    mix.spectrum_after_db.extend([-20.0, -28.0, -41.0])
    report.masking.add(masker=names[1], masked=names[0], before_index=0.41, after_index=0.29)
    report.rails.add(name="gain_reduction", value=3.42, limit=3.0, unit="dB", held=False)
    report.rails.add(name="correlation", value=0.72, limit=0.1, held=True, rounds=2)
    report.as_given = True
    report.plugins.add(name="ZamCompX2", version="4.2")
    report.plugins.add(name="Gone", reason="PLUGIN_FAILED")
    return report


def test_a_mix_is_told_by_tables_matrix_and_spectra() -> None:
    """The page of a mix holds every strip's figures, what drove each processor, the matrix before and after, a spectrum
    of the mix and of every strip, and the plugins; every name is escaped."""
    report = job_service_pb2.JobReport(mix=_mix_report())
    page = render_mix(report, title="Song <1>")
    HTMLParser().feed(page)
    assert "<b>vox" not in page
    assert "Song &lt;1&gt;" in page
    for told in (
        "lead vocal",
        "-2.5 dB",
        "-1.25 dB",
        "-3.5 dB",
        "40%",
        "30%",
        "correlation 0.72",
        "4.2",
        "PLUGIN_FAILED",
    ):
        assert told in page, told
    assert page.count("<td>lead &lt;b&gt;vox&lt;/b&gt;</td>") == 3, "as a strip, as a part with a processor, as a key"
    for told in (
        ">41</text>",
        ">29</text>",
        "<td>gain reduction</td><td>3.42 dB</td><td>3 dB</td><td>missed</td>",
        "<td>correlation</td><td>0.72</td><td>0.1</td><td>holds</td><td>2</td>",
        "The plan was given and is rendered as it is",
        "Masking before",
        "Masking after",
        "Spectrum of mix",
        "Spectrum of keys &amp; pads",
    ):
        assert told in page, told
    assert "http" not in page


def test_a_job_without_a_mix_has_no_section_of_it() -> None:
    """Nothing is told of what was not done."""
    assert "Strips" not in render_mix(job_service_pb2.JobReport(), title="")


def _restored() -> dict[str, restorer_service_pb2.RestorationReport]:
    """A voice that is mended, left alone and out of reach in one thing each, and a clean stem."""
    voice = restorer_service_pb2.RestorationReport()
    voice.actions.add(
        engine="repair", treatment="declip", amount=1.0, reason="90 samples in flat peaks", before=90, after=0
    )
    voice.actions.add(engine="repair", treatment="holes", reason="1.2% of what sounds is holes", before=0.012)
    voice.actions.add(engine="audiosr", treatment="extension", reason="cut off at 8.0 kHz; <b>but</b>", before=8_000.0)
    voice.actions.add(engine="deepfilternet3", treatment="noise", reason="no weights", before=-40.0, unmet=True)
    voice.warnings.add(code="RESTORATION_FAILED", message="audiosr failed & bandwidth takes its place")
    clean = restorer_service_pb2.RestorationReport(unchanged=True)
    clean.actions.add(engine="repair", treatment="dc", reason="an offset of 1e-9 does no harm")
    return {"lead <vox>": voice, "bass": clean}


def test_restoration_is_told_stem_by_stem(comparison: Comparison) -> None:
    """What was done with its measure before and after, what was left alone and why, and what failed, on every page."""
    made = report()
    for name, restored in _restored().items():
        made.restorations[name].CopyFrom(restored)
    for page in (
        render(made, comparison, title="Song", preview=""),
        render_mix(job_service_pb2.JobReport(restorations=made.restorations), title=""),
    ):
        reader = _Loads()
        reader.feed(page)
        assert reader.open == []
        assert "<h2>Restoration</h2>" in page
        for cell in ("clipping", "repair", "100%", "90 samples", "0 samples", "90 samples in flat peaks"):
            assert f"<td>{cell}</td>" in page, cell
        for said in (
            "holes (repair): 1.2% of what sounds is holes",
            "bandwidth (audiosr): cut off at 8.0 kHz; &lt;b&gt;but&lt;/b&gt;",
            "audiosr failed &amp; bandwidth takes its place",
            "<li>noise stays at -40.0 dBFS: no weights</li></ul><details>",
            "<h3>lead &lt;vox&gt;</h3>",
            "Came back bit for bit",
        ):
            assert said in page, said
        assert page.index("<h3>bass") < page.index("<h3>lead"), "in the order of names"


def test_without_restoration_there_is_no_section_of_it() -> None:
    """Nothing is told of what was not done."""
    assert "Restoration" not in render_mix(job_service_pb2.JobReport(mix=_mix_report()), title="")
