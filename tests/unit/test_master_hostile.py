"""Hostile signals through the whole master: the ceiling on every meter and the loudness of every kind of file.

Here each signal goes through two intents and a sixth of the files; `make acceptance` runs all of them.
"""

from __future__ import annotations

import itertools

import pytest

from benchmarks.deliverables import INTENTS, RATE_HERTZ, SECONDS, Reading, delivered, hostile_readings
from benchmarks.hostile import HOSTILE, every_file, hostile
from services.master.deliver import tolerance_db
from services.master.settings import DeliverableSpec, MasterSettings

FFMPEG_ROUNDING_DB = 0.01
SHARE = 6


def check(reading: Reading) -> None:
    """By three meters and ffmpeg's within the file's tolerance over the ceiling; at its target, or with its reason."""
    report = reading.report
    where = f"{report.name}: {reading.over_db:+.3f} dB, by ffmpeg {reading.ffmpeg_over_db:+.3f} dB over its ceiling"
    allowed = tolerance_db(report.spec)
    assert reading.over_db <= allowed, where
    assert reading.ffmpeg_over_db <= allowed + FFMPEG_ROUNDING_DB, where
    if reading.lufs is not None and reading.target_lufs is not None:
        missed = abs(reading.lufs - reading.target_lufs)
        told = f"{report.name}: {reading.lufs:.2f} LUFS for {reading.target_lufs:.2f}: {report.target_missed_reason!r}"
        assert (missed > 0.1) == bool(report.target_missed_reason), told
    if report.spec.container == "mp3":
        assert report.encodes <= (3 if report.spec.bitrate_kbps == 320 else 8)


@pytest.mark.parametrize(("number", "name"), list(enumerate(HOSTILE)))
def test_a_hostile_signal_keeps_its_ceiling_and_loudness(number: int, name: str) -> None:
    """Two intents, three or four files each; a file is never at another loudness without a reason of its own."""
    intents = tuple(itertools.islice(itertools.cycle(INTENTS), number, number + 2))
    for reading in hostile_readings((name,), intents, every_file()[number::SHARE]):
        check(reading)


@pytest.mark.parametrize("rate", [44100, 96000])
def test_noise_keeps_its_loudness_at_another_rate(rate: int) -> None:
    """From 48 kHz to another rate full-band noise loses up to 0.4 LU; each file takes it back under its ceiling."""
    files = (DeliverableSpec("same"), DeliverableSpec("other", sample_rate_hertz=rate))
    settings = MasterSettings(intent="loud", deliverables=files)
    same, other = delivered(hostile("noise_bursts", RATE_HERTZ, SECONDS), settings)
    for reading in (same, other):
        check(reading)
        assert reading.lufs is not None
        assert reading.lufs == pytest.approx(-10.0, abs=0.06), f"{reading.report.name}: {reading.lufs:.2f} LUFS"
