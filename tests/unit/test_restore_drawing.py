"""New upper bands that a network draws: spliced without harm, the same however they are computed, and never at the
price of a job. The network is a function here; tests/integration/test_triton_restoration.py has the real one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import signal

from outboard.audio.band_splice import SEAM_HERTZ
from outboard.errors import FailedPrecondition, InvalidInput, Unavailable
from outboard.testing import drained
from services.restorer import superresolution
from services.restorer.bandwidth import BandwidthPlan
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, restore
from services.restorer.settings import AUDIOSR, AUDIOSR_SPEECH, BANDWIDTH, ENGINES, REPAIR
from services.restorer.superresolution import ATTEMPTS, Drawing, DrawingEngine, Sampling

RATE = 48_000
CUTOFF = 8_000.0
INFO = next(info for info in ENGINES if info.name == AUDIOSR)
SHORT = (122_880, 61_440)  # windows of 2.56 and 1.28 s


def done(audio: np.ndarray) -> Future[np.ndarray]:
    future: Future[np.ndarray] = Future()
    future.set_result(audio)
    return future


def full_band(seconds: float = 6.0, channels: int = 2, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Pink noise in notes that come and go."""
    draw = np.random.default_rng(seed)
    frames = round(seconds * rate)
    spectrum = np.fft.rfft(draw.standard_normal((channels, frames)), axis=1)
    spectrum /= np.sqrt(np.arange(spectrum.shape[1]) + 50.0)
    spectrum[:, 0] = 0.0
    audio = np.fft.irfft(spectrum, frames, axis=1)
    notes = 0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * np.arange(frames) / rate)
    return (0.1 * notes * audio / np.std(audio)).astype(np.float32)


def cut(audio: np.ndarray, cutoff: float = CUTOFF, rate: int = RATE) -> np.ndarray:
    taps = signal.firwin(2001, cutoff, window=("kaiser", 10.0), fs=rate)
    return signal.oaconvolve(audio, taps[None, :], mode="same", axes=1).astype(np.float32)


def noise(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
    """A network that has nothing to do with its input, but is as loud."""
    drawn = np.random.default_rng(drawing.key).standard_normal(window.size)
    return done((drawn * np.std(window)).astype(np.float32))


def drawn(
    audio: np.ndarray,
    draw: superresolution.Draw,
    rate: int = RATE,
    cutoff: float = CUTOFF,
    attempts: tuple[int, ...] = SHORT,
    **more: Any,
) -> np.ndarray:
    how = BandwidthPlan(1.0, "", cutoff, **more)
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    result, told = superresolution.rendered(
        audio, rate, DrawingEngine(INFO, draw), how, power, Sampling(), None, lambda _: None, attempts
    )
    assert result is not None, told
    with result:
        return np.array(result.array)


def band_db(audio: np.ndarray, low: float, high: float, rate: int = RATE) -> float:
    frequencies, power = signal.welch(audio.astype(np.float64), rate, nperseg=4096, axis=-1)
    inside = (frequencies >= low) & (frequencies < high)
    return float(10 * np.log10(np.mean(power[..., inside]) + 1e-30))


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("draw", [noise, lambda window, _: done(-np.roll(window, 7))], ids=["noise", "turned"])
def test_below_the_cutoff_the_stem_stays_as_it_was(rate: int, draw: superresolution.Draw) -> None:
    """Whatever was drawn, at any rate, as many frames come back, and what lies below the cutoff minus the cross-fade is
    the original to -90 dBFS.
    """
    audio = cut(full_band(5.3, rate=rate), rate=rate)
    result = drawn(audio, draw, rate)
    assert result.shape == audio.shape
    low = signal.firwin(4001, CUTOFF - SEAM_HERTZ - 150.0, window=("kaiser", 12.0), fs=rate)
    difference = signal.oaconvolve((result - audio).astype(np.float64), low[None, :], mode="same", axes=1)
    changed_db = 20 * np.log10(max(float(np.max(np.abs(difference))), 1e-12))
    assert changed_db <= -90.0, f"{changed_db:.1f} dBFS"


@pytest.mark.parametrize(("gain", "late", "sign"), [(1.0, 0, 1), (0.25, 0, 1), (1.0, 9, 1), (0.5, -13, -1)])
def test_what_is_drawn_right_comes_back_right(gain: float, late: int, sign: int) -> None:
    """A network that knows the whole band gives it back, though it is quieter, late, or upside down: level and time are
    matched below the cutoff, so every third of an octave around and above the seam is within 1.5 dB of the truth, and
    there is no notch where both meet.
    """
    truth = full_band(6.0)
    audio = cut(truth)
    order: list[int] = []

    def knows(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        number, channel = divmod(len(order), 2)
        order.append(number)
        start = number * (SHORT[0] - superresolution.OVERLAP_FRAMES)
        part = np.zeros(SHORT[0] + 100, np.float32)
        piece = truth[channel, max(0, start - 50) : start + SHORT[0] + 50]
        part[50 * (start == 0) :][: piece.size] = piece
        level = np.max(np.abs(window)) / np.max(np.abs(part))
        return done((sign * gain * level * np.roll(part, late)[50:-50]).astype(np.float32))

    result = drawn(audio, knows)
    for low in 6_000.0 * 2.0 ** (np.arange(6) / 3.0):
        error = band_db(result, low, low * 2 ** (1 / 3)) - band_db(truth, low, low * 2 ** (1 / 3))
        assert abs(error) <= 1.5, f"{low:.0f} Hz: {error:+.2f} dB"
    seam = [
        band_db(result, at, at + 100) - band_db(truth, at, at + 100)
        for at in np.arange(CUTOFF - SEAM_HERTZ, CUTOFF + 400, 100)
    ]
    assert min(seam) >= -3.0, f"a notch of {min(seam):.1f} dB at the seam"


def test_windows_meet_without_a_dip() -> None:
    """Drawings of two windows that have nothing to do with each other keep the new band's level where they cross."""
    audio = cut(full_band(8.0, seed=2))
    result = drawn(audio, noise) - audio
    advance = SHORT[0] - superresolution.OVERLAP_FRAMES
    middle = advance + superresolution.OVERLAP_FRAMES // 2
    around = band_db(result[:, middle - 60_000 : middle + 60_000], 10_000, 16_000)
    at = band_db(result[:, middle - 8_000 : middle + 8_000], 10_000, 16_000)
    assert abs(at - around) <= 3.0, f"{at - around:+.1f} dB where two windows cross"


def test_silence_stays_silent_and_nothing_is_asked_for_it() -> None:
    """Where a stem is silent no band is drawn, and a silent window does not reach the network."""
    audio = cut(full_band(9.0, seed=4))
    audio[:, 3 * RATE :] = 0.0
    asked: list[Drawing] = []

    def draw(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        asked.append(drawing)
        return noise(window, drawing)

    result = drawn(audio, draw)
    assert not np.any(np.abs(result[:, 3 * RATE + 4096 :]) > 1e-5)
    assert len(asked) == 4, "two windows of two channels sound"


def test_noise_is_the_windows_own() -> None:
    """Every window and channel has a key of its own, which depends on the seed: the same bytes again for the same seed,
    others for another, in whatever order the answers come.
    """
    audio = cut(full_band(6.0))
    keys: list[int] = []

    def late(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        keys.append(drawing.key)
        future: Future[np.ndarray] = Future()
        answer = noise(window, drawing).result()
        threading.Timer(0.02 * (4 - len(keys) % 5), lambda: future.set_result(answer)).start()
        return future

    first = drawn(audio, late)
    assert len(set(keys)) == len(keys)
    assert np.array_equal(first, drawn(audio, noise))
    result, _ = superresolution.rendered(
        audio,
        RATE,
        DrawingEngine(INFO, noise),
        BandwidthPlan(1.0, "", CUTOFF),
        0.01,
        Sampling(4),
        None,
        lambda _: None,
        SHORT,
    )
    assert result is not None
    assert not np.array_equal(first, result.array)
    result.close()


@pytest.mark.parametrize("frames", [1, 500, 2049, 61_440, 122_880, 122_881])
def test_any_length(frames: int) -> None:
    """Down to one frame, as many come back."""
    audio = full_band(6.0)[:, :frames]
    result = drawn(cut(audio) if frames > 2001 else audio, noise)
    assert result.shape == audio.shape
    assert np.all(np.isfinite(result))


def test_a_voice_keeps_35_db() -> None:
    """A limit on the new band's energy, as automatic mode sets one for voices, is kept."""
    audio = cut(full_band(5.0))
    result = drawn(audio, noise, limit_db=-36.0)
    kept = 10 * np.log10(np.sum(audio.astype(np.float64) ** 2) / np.sum((result - audio).astype(np.float64) ** 2))
    assert kept >= 35.0, f"{kept:.1f} dB"


# The chain.


def restored(
    audio: np.ndarray,
    *steps: RestorationStep,
    engine: DrawingEngine | None,
    progress: Callable[[float], None] | None = None,
    role: str = "keys",
) -> tuple[np.ndarray, RestorationReport]:
    drawing = {} if engine is None else {engine.info.name: engine}
    settings = RestorationSettings(role=role, steps=steps)
    pieces, report = drained(restore(audio, RATE, settings, progress, drawing=drawing))
    return np.concatenate([*pieces, audio[:, :0]], axis=1), report


class Faulty:
    """A network that fails at some of its windows, as often as it is told."""

    def __init__(self, error: Exception, times: int = 10**9, after: int = 1) -> None:
        self.error, self.times, self.after = error, times, after
        self.asked: list[int] = []

    def __call__(self, window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        self.asked.append(window.size)
        if len(self.asked) > self.after and self.times:
            self.times -= 1
            future: Future[np.ndarray] = Future()
            future.set_exception(self.error)
            return future
        return noise(window, drawing)


FAULTS = {
    "out of memory": (MemoryError(), "RESOURCE_EXHAUSTED"),
    "CUDA out of memory": (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "RESOURCE_EXHAUSTED"),
    "mismatch": (RuntimeError("The size of tensor a (96) must match the size of tensor b (97)"), "MODEL_FAILED"),
    "timeout": (TimeoutError("no answer within 3600 s"), "DEADLINE_EXCEEDED"),
}


@pytest.fixture(scope="module")
def stem() -> np.ndarray:
    return cut(full_band(11.0, seed=9))


@pytest.fixture(scope="module")
def extended(stem: np.ndarray) -> np.ndarray:
    """What `bandwidth` makes of it."""
    result, report = restored(stem, RestorationStep(BANDWIDTH), engine=None)
    assert not report.unchanged
    return result


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_tried_again_in_shorter_windows(fault: str, stem: np.ndarray) -> None:
    """The second attempt draws windows of half the length; what it gives counts, and nothing of the first."""
    network = Faulty(FAULTS[fault][0], times=1)
    result, report = restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(INFO, network))
    assert set(network.asked) == set(ATTEMPTS)
    assert np.array_equal(result, drawn(stem, noise_of(report), cutoff=cutoff_of(report), attempts=ATTEMPTS[1:]))
    assert report.warnings == report.failed_engines == ()
    assert [engine.name for engine in report.engines] == [AUDIOSR]


def noise_of(_: RestorationReport) -> superresolution.Draw:
    return lambda window, drawing: noise(window, drawing)


def cutoff_of(report: RestorationReport) -> float:
    assert report.found.bandwidth_hertz is not None
    return report.found.bandwidth_hertz


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_failure_is_replaced_by_bandwidth(fault: str, stem: np.ndarray, extended: np.ndarray) -> None:
    """Where every attempt fails `bandwidth` takes the engine's place, as if it had been asked alone; the report names
    it, with a warning that has the reasons and codes of both attempts.
    """
    error, code = FAULTS[fault]
    network = Faulty(error)
    result, report = restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(INFO, network))
    assert set(network.asked) == set(ATTEMPTS)
    assert np.array_equal(result, extended)
    assert [engine.name for engine in report.engines] == [BANDWIDTH]
    assert report.failed_engines == (AUDIOSR,)
    [warning] = report.warnings
    assert warning.code == "RESTORATION_FAILED"
    assert warning.message.count(code) == 2, warning.message
    assert "bandwidth takes its place" in warning.message
    assert (str(error) or "MemoryError") in warning.message


@pytest.mark.parametrize(
    "error",
    [
        FailedPrecondition("the weights are gone: `outboard models pull audiosr`", reason="MODEL_WEIGHTS_MISSING"),
        InvalidInput("other shapes", reason="MODEL_INVALID"),
        Unavailable("there is no model server at its address", reason="MODEL_SERVER_UNAVAILABLE"),
    ],
)
def test_an_answer_is_not_asked_for_twice(error: Any, stem: np.ndarray, extended: np.ndarray) -> None:
    """Missing weights, other shapes and a server that is away are no accidents: nothing smaller is tried."""
    network = Faulty(error, after=0)
    result, report = restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(INFO, network))
    assert set(network.asked) == {ATTEMPTS[0]}
    assert np.array_equal(result, extended)
    assert error.reason in report.warnings[0].message


@pytest.mark.parametrize("answer", [lambda w: w[1:], lambda w: w * np.float32(np.nan)])
def test_an_answer_that_is_none_counts_as_failure(
    answer: Callable[[np.ndarray], np.ndarray], stem: np.ndarray, extended: np.ndarray
) -> None:
    """Wrong lengths and NaN never get into the stem."""
    engine = DrawingEngine(INFO, lambda window, _: done(answer(window)))
    result, report = restored(stem, RestorationStep(AUDIOSR), engine=engine)
    assert np.array_equal(result, extended)
    assert "does not fit, or is not finite" in report.warnings[0].message


def test_a_network_that_hangs_is_given_up(
    stem: np.ndarray, extended: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A future that never comes ends as a timeout, and its windows are cancelled."""
    monkeypatch.setattr(superresolution, "HUNG_SECONDS", 0.5)
    futures: list[Future[np.ndarray]] = []

    def hangs(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        futures.append(Future())
        return futures[-1]

    result, report = restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(INFO, hangs))
    assert np.array_equal(result, extended)
    assert "DEADLINE_EXCEEDED" in report.warnings[0].message
    assert all(future.cancelled() for future in futures)


def test_where_bandwidth_follows_it_runs_once(stem: np.ndarray, extended: np.ndarray) -> None:
    """In a chain of both, as automatic mode has it, the second makes up for the first and else finds nothing to do."""
    steps = (RestorationStep(AUDIOSR), RestorationStep(BANDWIDTH))
    result, report = restored(stem, *steps, engine=DrawingEngine(INFO, Faulty(MemoryError())))
    assert np.array_equal(result, extended)
    assert [engine.name for engine in report.engines] == [BANDWIDTH]
    _, report = restored(stem, *steps, engine=DrawingEngine(INFO, noise))
    assert [engine.name for engine in report.engines] == [AUDIOSR]
    assert [(action.engine, action.amount > 0) for action in report.actions] == [(AUDIOSR, True), (BANDWIDTH, False)]


def test_automatic_mode_takes_what_is_here(stem: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """Repair first; the network where it can run, else `bandwidth`, which report and log say, without a warning; and a
    stem with its whole band comes back as it was.
    """
    result, report = restored(stem, engine=DrawingEngine(INFO, noise))
    assert [engine.name for engine in report.engines] == [REPAIR, AUDIOSR]
    assert not np.array_equal(result, stem)
    away = replace(INFO, available=False, unavailable_reason="needs a CUDA device")
    with caplog.at_level("INFO"):
        _, report = restored(stem, engine=DrawingEngine(away, noise))
    assert [engine.name for engine in report.engines] == [REPAIR, BANDWIDTH]
    assert report.warnings == report.failed_engines == ()
    assert any("needs a CUDA device" in action.reason for action in report.actions)
    assert any(getattr(record, "engine", "") == AUDIOSR for record in caplog.records)
    whole = full_band(5.0)
    result, report = restored(whole, engine=DrawingEngine(INFO, Faulty(MemoryError(), after=0)))
    assert np.array_equal(result, whole)
    assert report.warnings == ()


def test_a_named_engine_that_is_not_here_is_replaced_with_a_warning(stem: np.ndarray, extended: np.ndarray) -> None:
    """Asked for by name, its absence is told."""
    away = replace(INFO, available=False, unavailable_reason="no weights", unavailable_error="MODEL_WEIGHTS_MISSING")
    result, report = restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(away, noise))
    assert np.array_equal(result, extended)
    assert "MODEL_WEIGHTS_MISSING" in report.warnings[0].message


def test_speech_is_only_drawn_with_an_amount(stem: np.ndarray) -> None:
    """The network for the spoken word waits to be asked."""
    engine = DrawingEngine(replace(INFO, name=AUDIOSR_SPEECH), noise)
    result, report = restored(stem, RestorationStep(AUDIOSR_SPEECH), engine=engine)
    assert np.array_equal(result, stem)
    assert report.unchanged
    result, report = restored(stem, RestorationStep(AUDIOSR_SPEECH, 1.0), engine=engine)
    assert [engine.name for engine in report.engines] == [AUDIOSR_SPEECH]


def test_cancelling_is_no_failure_of_the_engine(stem: np.ndarray) -> None:
    """What progress raises ends the work within a moment, while a network is being waited for."""

    class Cancelled(Exception):
        pass

    asked: list[Future[np.ndarray]] = []

    def slow(window: np.ndarray, drawing: Drawing) -> Future[np.ndarray]:
        asked.append(Future())
        return asked[-1]

    def progress(fraction: float) -> None:
        if asked:
            raise Cancelled

    with pytest.raises(Cancelled):
        restored(stem, RestorationStep(AUDIOSR), engine=DrawingEngine(INFO, slow), progress=progress)
    assert {future.cancelled() for future in asked} == {True}


def test_progress_only_goes_forward(stem: np.ndarray) -> None:
    """A second attempt and a replacement never take progress back; it ends at 1."""
    told: list[float] = []
    steps = (RestorationStep(AUDIOSR), RestorationStep(BANDWIDTH))
    restored(stem, *steps, engine=DrawingEngine(INFO, Faulty(MemoryError())), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("field", "value"), [("diffusion_steps", 9), ("diffusion_steps", 201), ("guidance_scale", 0.5)]
)
def test_settings_out_of_range_are_named(field: str, value: Any, stem: np.ndarray) -> None:
    """Steps from 10 to 200 and a guidance of 1 to 10."""
    with pytest.raises(InvalidInput, match=field):
        restored(stem, RestorationStep(AUDIOSR, **{field: value}), engine=DrawingEngine(INFO, noise))
