"""A network that draws upper bands as one step of the chain: tried again, replaced, told, and never at the price of a
job. The network is a function here; tests/integration/test_triton_restoration.py has the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outboard.errors import FailedPrecondition, InvalidInput, Unavailable
from outboard.testing import drained
from services.restorer import superresolution
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, restore
from services.restorer.settings import AUDIOSR, AUDIOSR_SPEECH, BANDWIDTH, REPAIR
from services.restorer.superresolution import ATTEMPTS, Drawing, DrawingEngine
from tests.unit.test_restore_drawing import INFO, RATE, cut, done, drawn, full_band, noise


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
