"""Scores of separated stems: the definition that campaigns use, and the table that is made of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from xml.etree import ElementTree

import mir_eval.separation
import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from benchmarks.bss_eval import bss_eval
from benchmarks.separation import musdb_clips
from benchmarks.separation_scores import flux, score, write_scores

NAMES = ("sdr", "isr", "sir", "sar")


def case(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Two stereo sources of coloured noise and estimates with bleed, a filter and noise of their own."""
    generator = np.random.default_rng(5)
    truths = np.stack([lfilter([1.0], [1.0, -pole], generator.standard_normal((2, frames))) for pole in (0.9, -0.5)])
    estimates = 0.8 * truths + 0.15 * truths.sum(axis=0) + 0.05 * generator.standard_normal(truths.shape)
    return truths, lfilter([0.9, 0.2, 0.1], [1.0], estimates)


def test_over_a_whole_signal_it_is_mir_evals() -> None:
    """SDR, ISR, SIR and SAR of one window equal `mir_eval.separation.bss_eval_images` to 0.001 dB."""
    truths, estimates = case(12_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = mir_eval.separation.bss_eval_images(
            truths.transpose(0, 2, 1), estimates.transpose(0, 2, 1), compute_permutation=False
        )
    ours = bss_eval(truths, estimates, 12_000)
    for name, expected in zip(NAMES, theirs, strict=False):
        found = [float(getattr(one, name)[0]) for one in ours]
        assert found == pytest.approx(expected, abs=1e-3), f"{name}: {found} against {expected}"


def test_window_by_window_it_is_musevals() -> None:
    """Filters of the whole signal, energies of each window: museval 0.4.1's
    `bss_eval(window=4000, hop=4000, framewise_filters=False)` on the same signals."""
    museval = {
        "sdr": [[15.141, 15.0174, 15.0752], [7.1338, 7.1795, 7.106]],
        "isr": [[15.6858, 15.6316, 15.6907], [10.8773, 10.9169, 10.8364]],
        "sir": [[25.3262, 25.1173, 25.2946], [7.5507, 7.6971, 7.7631]],
        "sar": [[35.4177, 34.5741, 34.9395], [27.1893, 27.3575, 27.1936]],
    }
    truths, estimates = case(12_000)
    for stem, scores in enumerate(bss_eval(truths, estimates, 4_000)):
        for name, expected in museval.items():
            assert getattr(scores, name) == pytest.approx(expected[stem], abs=1e-3), name


def test_a_second_with_a_silent_source_counts_for_none() -> None:
    """As museval: such a second has no score, and the median leaves it out."""
    truths, estimates = case(12_000)
    truths[1, :, 4_000:8_000] = 0.0
    scores = bss_eval(truths, estimates, 4_000)
    for one in scores:
        assert list(np.isnan(one.sdr)) == [False, True, False]
        assert one.median("sdr") == pytest.approx(float(np.mean(one.sdr[[0, 2]])))


def test_a_mono_song_in_two_channels_has_scores() -> None:
    """Equal channels leave the filters undetermined; what they make of the sources is not."""
    truths, estimates = case(12_000)
    truths[:, 1], estimates[:, 1] = truths[:, 0], estimates[:, 0]
    mono = bss_eval(truths[:, :1], estimates[:, :1], 12_000)
    for one, expected in zip(bss_eval(truths, estimates, 12_000), mono, strict=True):
        for name in NAMES:
            assert getattr(one, name) == pytest.approx(getattr(expected, name), abs=0.05), name


def test_flux_tells_flickering_tones_from_noise_and_noise_from_steady_tones() -> None:
    """A steady tone 0, white noise 0.25 to 0.35, a tone that is on in every second look over 0.45."""
    rate, frames = 44_100, 1 << 17
    tone = np.sin(2 * np.pi * 64 * np.arange(frames) / 2048).astype(np.float32)
    flickering = tone * (np.arange(frames) // 2048 % 2)
    noise = np.random.default_rng(0).standard_normal(frames).astype(np.float32)
    figures = [flux(audio[np.newaxis], rate) for audio in (tone, noise, flickering.astype(np.float32))]
    assert figures[0] < 0.05, figures
    assert 0.25 < figures[1] < 0.35, figures
    assert figures[2] > 0.45, figures


def test_the_layout_of_musdb_is_read(tmp_path: Path) -> None:
    """Songs of the folder, of `train` and of `test`; without a mixture the stems' sum; without all stems no song."""
    generator = np.random.default_rng(1)
    stems = {name: generator.uniform(-0.1, 0.1, (100, 2)) for name in ("vocals", "drums", "bass", "other")}
    for song, left_out in (("test/a", ""), ("train/b", "mixture"), ("c", "bass")):
        (tmp_path / song).mkdir(parents=True)
        for name, audio in {**stems, "mixture": sum(stems.values())}.items():
            if name != left_out:
                soundfile.write(tmp_path / song / f"{name}.wav", audio, 44_100, "FLOAT")
    clips = list(musdb_clips(tmp_path))
    assert [clip.name for clip in clips] == ["a", "b"]
    assert np.allclose(clips[0].mixture, clips[1].mixture, atol=1e-6)
    assert clips[0].sample_rate_hertz == 44_100


def test_scores_become_a_table_and_a_plot(tmp_path: Path) -> None:
    """Every clip and the medians in Markdown, every clip in JSON, bars for each stem and measure in an SVG file."""
    truths, estimates = case(12_000)
    true, found = ({"vocals": side[0], "drums": side[1], "bass": 0.0 * side[0]} for side in (truths, estimates))
    scores = [one for clip in ("a", "b") for one in score(clip, "<x>", true, found, 4_000)]
    write_scores(scores, tmp_path)
    assert [(one["clip"], one["stem"]) for one in json.loads((tmp_path / "scores.json").read_text())] == [
        (clip, stem) for clip in ("a", "b") for stem in ("vocals", "drums")
    ]
    table = (tmp_path / "scores.md").read_text().splitlines()
    assert table[0] == "| clip | engine | stem | SDR, dB | SI-SDR, dB | SIR, dB | SAR, dB | flux of the error |"
    assert [line.split(" | ")[0] for line in table[2:]] == ["| a", "| a", "| b", "| b", "| median", "| median"]
    bars = ElementTree.parse(tmp_path / "scores.svg").findall(".//{*}rect/{*}title")
    assert len(bars) == 2 * 4
    assert bars[0].text == f"<x>, vocals: {scores[0].sdr:.1f} dB"
