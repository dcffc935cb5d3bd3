"""Echo and chorus: repeats where and as loud as asked, copies that swing, the same samples at any block size."""

from __future__ import annotations

import numpy as np
import pytest

from outboard.audio.chorus import Chorus, ChorusSettings
from outboard.audio.echo import Echo, EchoSettings

RATE = 48_000


def impulse(frames: int = RATE) -> np.ndarray:
    x = np.zeros((2, frames), np.float32)
    x[:, 0] = 1.0
    return x


def test_repeats_come_in_time_and_fall_by_the_feedback() -> None:
    """Every 100 ms, each half as strong as the one before."""
    s = EchoSettings(100.0, 0.5, damping_hertz=20_000.0, low_cut_hertz=1.0)
    y = Echo(s, RATE).process(impulse())[0]
    step = RATE // 10
    assert not y[1:step].any()
    assert y[step] == 1.0
    for k in (2, 3, 4):
        heard = float(np.sum(y[k * step : k * step + 20]))
        assert heard == pytest.approx(0.5 ** (k - 1), rel=0.06), f"repeat {k}: {heard:.3f}"


def test_damping_takes_the_top_of_every_repeat() -> None:
    """At the corner the third repeat has lost two more one-pole low-passes than the first: 6 dB."""
    y = Echo(EchoSettings(100.0, 0.5, damping_hertz=3_000.0, low_cut_hertz=1.0), RATE).process(impulse())[0]
    step = RATE // 10
    first, third = (np.abs(np.fft.rfft(y[k * step : (k + 1) * step])) for k in (1, 3))
    bin_at = 3_000 // 10
    lost = 20.0 * np.log10(third[bin_at] / first[bin_at]) - 20.0 * np.log10(third[50] / first[50])
    assert lost == pytest.approx(-6.0, abs=0.6), f"{lost:.2f} dB"


def test_ping_pong_alternates() -> None:
    """The first repeat is on the left only, the second on the right only."""
    y = Echo(EchoSettings(50.0, 0.5, ping_pong=True), RATE).process(impulse())
    step = RATE // 20
    first, second = y[:, step : 2 * step], y[:, 2 * step : 3 * step]
    assert first[0].any()
    assert not first[1].any()
    assert second[1].any()
    assert not second[0].any()


def test_a_chorus_swings_around_its_delay() -> None:
    """With depth 0 it is a delay of 8 ms; with depth the copies of a steady tone beat against it."""
    still = Chorus(ChorusSettings(depth_ms=0.0, mix=1.0), RATE).process(impulse(2_000))[0]
    assert int(np.argmax(still)) == 384
    assert still[384] == 1.0
    tone = np.tile(np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE), (2, 1)).astype(np.float32)
    levels = np.abs(Chorus(ChorusSettings(2.0, 2.0, 0.5), RATE).process(tone)[0]).reshape(-1, 480).max(axis=1)[10:]
    assert levels.max() / levels.min() > 1.5


@pytest.mark.parametrize(
    "make",
    [lambda: Echo(EchoSettings(3.0, 0.9, 2_000.0, True), RATE), lambda: Chorus(ChorusSettings(3.0, 5.0, 0.5), RATE)],
    ids=["echo", "chorus"],
)
def test_any_cut_gives_the_same_samples(make) -> None:  # type: ignore[no-untyped-def]
    """Bit-identical; finite for the largest samples; and with a mix of 0 there is nothing."""
    x = np.random.default_rng(4).standard_normal((2, 5_000)).astype(np.float32)
    pieces = make()
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 700, 701, 4_096], axis=1)], axis=1)
    assert np.array_equal(cut, make().process(x))
    assert np.all(np.isfinite(make().process(np.sign(x) * np.float32(3.4e38))))


def test_without_a_share_nothing_changes() -> None:
    """Mix 0 is exact."""
    x = np.random.default_rng(5).standard_normal((2, 999)).astype(np.float32)
    assert np.array_equal(Echo(EchoSettings(3.0, mix=0.0), RATE).process(x), x)
    assert np.array_equal(Chorus(ChorusSettings(mix=0.0), RATE).process(x), x)


@pytest.mark.parametrize("change", [{"time_ms": 0.0}, {"feedback": 1.0}, {"mix": -0.1}], ids=str)
def test_wrong_numbers_are_refused(change: dict[str, float]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(change))):
        EchoSettings(**({"time_ms": 100.0} | change))
