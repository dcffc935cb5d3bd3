"""Noise in voices: taken where it is, not where it is not, and never at the price of a job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from outboard.audio.demo import synthesise
from outboard.errors import FailedPrecondition
from outboard.models.deepfilternet3.stream import denoised
from outboard.settings import Settings
from outboard.testing import drained
from services.restorer import deployment
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, restore
from services.restorer.settings import DEEPFILTERNET3, ENGINES, REPAIR
from services.restorer.voice import VoiceEngine

RATE = 48_000
INFO = next(info for info in ENGINES if info.name == DEEPFILTERNET3)


def restored(
    audio: np.ndarray,
    *steps: RestorationStep,
    voice: VoiceEngine | None,
    role: str = "lead_vocal",
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, RestorationReport]:
    blocks, report = drained(restore(audio, RATE, RestorationSettings(role=role, steps=steps), progress, voice))
    return np.concatenate([*blocks, audio[:, :0]], axis=1), report


def snr_db(reference: np.ndarray, audio: np.ndarray) -> float:
    error = np.sum((reference - audio).astype(np.float64) ** 2)
    return 10.0 * np.log10(np.sum(reference.astype(np.float64) ** 2) / max(error, 1e-20))


def with_noise(audio: np.ndarray, db: float) -> np.ndarray:
    noise = np.random.default_rng(4).normal(size=audio.shape)
    wanted = np.mean(audio**2) * 10.0 ** (-db / 10.0)
    return (audio + noise * np.sqrt(wanted / np.mean(noise**2))).astype(np.float32)


@pytest.fixture(scope="module")
def singing(test_data: Path) -> np.ndarray:
    audio, _ = soundfile.read(test_data / "ground_truth" / "potassium" / "vocals.flac", dtype="float32", frames=480_000)
    return np.ascontiguousarray(audio.T)


@pytest.fixture(scope="module")
def network(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> VoiceEngine:
    """The real network on its real weights."""
    pytest.importorskip("torch", reason="torch is not installed: make models")
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(test_data / "weights" / "DeepFilterNet3", root / "deepfilternet3")

    def run(*args: Any, **options: Any) -> Iterator[np.ndarray]:
        return denoised(*args, root=root, **options)

    return VoiceEngine(INFO, run)


def halving(blocks: Iterator[np.ndarray], *_: Any, **__: Any) -> Iterator[np.ndarray]:
    """A network that halves all it is given."""
    return (np.float32(0.5) * block for block in blocks)


def tone() -> np.ndarray:
    """Two seconds of notes that die away, at which nothing is to be repaired."""
    seconds = np.arange(2 * RATE) / RATE
    notes = np.stack([np.sin(2 * np.pi * pitch * seconds) for pitch in (220, 330)])
    return (0.3 * notes * np.exp(-20.0 * (seconds % 0.5))).astype(np.float32)


def test_clean_singing_keeps_35_db(singing: np.ndarray, network: VoiceEngine) -> None:
    """The whole chain in automatic mode leaves at least 35 dB SNR to clean singing."""
    result, report = restored(singing, voice=network)
    kept = snr_db(singing, result)
    assert kept >= 35.0, f"{kept:.1f} dB: {report.actions}"
    assert report.warnings == ()


@pytest.mark.parametrize("db", [10.0, 20.0, 30.0])
def test_noise_in_singing_gets_less(db: float, singing: np.ndarray, network: VoiceEngine) -> None:
    """Noise at 10 to 30 dB below a voice is lowered, and the report says so."""
    noisy = with_noise(singing, db)
    result, report = restored(noisy, voice=network)
    gained = snr_db(singing, result) - snr_db(singing, noisy)
    assert gained >= {10.0: 10.0, 20.0: 5.5, 30.0: 2.0}[db], f"{gained:.2f} dB: {report.actions}"
    action = next(done for done in report.actions if done.treatment == "noise")
    assert action.engine == DEEPFILTERNET3
    assert action.amount > 0
    assert action.after is not None
    assert action.before is not None
    assert action.after < action.before - 3.0, str(action)
    assert [engine.name for engine in report.engines][:2] == [REPAIR, DEEPFILTERNET3]


@pytest.mark.parametrize("db", [10.0, 20.0])
def test_a_voice_that_the_network_does_not_know_is_no_worse_for_it(db: float, network: VoiceEngine) -> None:
    """Of a synthesiser's vowels the network takes nearly all; what is noise goes, and the vowels stay."""
    vowels = synthesise(34, 6.0).stems["vocals"][:, -4 * RATE :]
    noisy = with_noise(vowels, db)
    result, _ = restored(noisy, RestorationStep(DEEPFILTERNET3), voice=network)
    all_of_it, _ = restored(noisy, RestorationStep(DEEPFILTERNET3, 1.0), voice=network)
    before, after, at_once = (snr_db(vowels, audio) for audio in (noisy, result, all_of_it))
    assert at_once < before < after, f"{before:.1f} dB, {after:.1f} in automatic mode, {at_once:.1f} without a guard"


@pytest.mark.parametrize("seed", [35, 41])
def test_a_voice_that_never_rests_is_not_taken_for_noise(seed: int) -> None:
    """Vowels held without a pause leave no band empty, but move: what never goes away and is not steady stays."""
    vowels = np.ascontiguousarray(synthesise(seed, 6.0).stems["vocals"][:, -4 * RATE :])
    result, report = restored(vowels, RestorationStep(DEEPFILTERNET3), voice=VoiceEngine(INFO, halving))
    assert result.tobytes() == vowels.tobytes(), report.actions
    assert "not steady enough" in report.actions[-1].reason


@pytest.mark.parametrize("role", ["", "drums", "bass", "other"])
def test_what_is_no_voice_is_left_alone_unless_asked(role: str) -> None:
    """Noise in other stems stays, bit for bit; an amount asks for it."""
    audio = with_noise(tone(), 15.0)
    engine = VoiceEngine(INFO, halving)
    untouched, report = restored(audio, voice=engine, role=role)
    assert np.array_equal(untouched, audio)
    noise = next(done for done in report.actions if done.treatment == "noise")
    assert noise.reason == "not a voice, and not asked for"
    asked, _ = restored(audio, RestorationStep(DEEPFILTERNET3, 1.0), voice=engine, role=role)
    np.testing.assert_allclose(asked, 0.5 * audio, atol=1e-7)


@pytest.mark.parametrize(
    ("available", "says"), [(True, "not in the chain"), (False, "cannot run: fetch the weights")], ids=["here", "away"]
)
def test_noise_that_nobody_takes_is_told(available: bool, says: str) -> None:
    """A chain without the network leaves the noise of a voice, and says that it is there and why it stays; of a clean
    voice, and of what is no voice, there is nothing to say.
    """
    voice = VoiceEngine(replace(INFO, available=available, unavailable_reason="fetch the weights"), halving)
    for audio, role, count in ((with_noise(tone(), 15.0), "lead_vocal", 1), (tone(), "lead_vocal", 0)):
        _, report = restored(audio, RestorationStep(REPAIR), voice=voice, role=role)
        told = [action for action in report.actions if action.treatment == "noise"]
        assert len(told) == count, report.actions
        assert all(action.amount == 0.0 and says in action.reason and "dBFS" in action.reason for action in told), told
        assert all(action.unmet for action in told), told
    _, report = restored(with_noise(tone(), 15.0), RestorationStep(REPAIR), voice=voice, role="keys")
    assert "noise" not in [action.treatment for action in report.actions]


def test_the_amount_blends() -> None:
    """Amount 0.5 is half way between the stem and the network's answer; 0 is the stem, bit for bit."""
    audio = tone()
    engine = VoiceEngine(INFO, halving)
    half, _ = restored(audio, RestorationStep(DEEPFILTERNET3, 0.5), voice=engine)
    np.testing.assert_allclose(half, 0.75 * audio, atol=1e-7)
    none, report = restored(audio, RestorationStep(DEEPFILTERNET3, 0.0), voice=engine)
    assert np.array_equal(none, audio)
    assert report.unchanged


def test_what_eats_the_voice_is_held_back() -> None:
    """In automatic mode little more is taken in any band than the noise found, and the report says so."""
    audio = with_noise(tone(), 28.0)
    result, report = restored(audio, RestorationStep(DEEPFILTERNET3), voice=VoiceEngine(INFO, halving))
    kept = snr_db(audio, result)
    assert kept >= 15.0, f"{kept:.1f} dB of the voice is left; halved it would be 6"
    assert "backed off" in report.actions[-1].reason


class Faulty:
    """A network that fails after some blocks, as often as it is told."""

    def __init__(self, error: Exception | None, times: int = 99, given: Callable[..., Any] = halving) -> None:
        self.error, self.times, self.given = error, times, given
        self.asked: list[int] = []

    def __call__(self, blocks: Iterator[np.ndarray], *args: Any, block_hops: int) -> Iterator[np.ndarray]:
        self.asked.append(block_hops)
        for block in self.given(blocks):
            yield block
            if self.error is not None and len(self.asked) <= self.times:
                raise self.error


FAULTS = {
    "out of memory": MemoryError(),
    "CUDA out of memory": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mismatch": RuntimeError("The size of tensor a (96) must match the size of tensor b (97)"),
    "timeout": TimeoutError("no answer within 10 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_tried_again_in_smaller_blocks(fault: str) -> None:
    """The second attempt computes smaller blocks; what it gives counts, and nothing of the first."""
    network = Faulty(FAULTS[fault], times=1)
    result, report = restored(tone(), RestorationStep(DEEPFILTERNET3, 1.0), voice=VoiceEngine(INFO, network))
    assert network.asked == [100, 20]
    np.testing.assert_allclose(result, 0.5 * tone(), atol=1e-7)
    assert report.warnings == report.failed_engines == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_failure_leaves_the_stem_and_a_warning(fault: str) -> None:
    """Where every attempt fails the stem comes back bit for bit, with a warning that has the reason; steps go on."""
    network = Faulty(FAULTS[fault])
    steps = (RestorationStep(DEEPFILTERNET3, 1.0), RestorationStep(REPAIR))
    result, report = restored(tone(), *steps, voice=VoiceEngine(INFO, network))
    assert network.asked == [100, 20]
    without, _ = restored(tone(), RestorationStep(REPAIR), voice=None)
    assert np.array_equal(result, without)
    assert [warning.code for warning in report.warnings] == ["RESTORATION_FAILED"]
    assert (str(FAULTS[fault]) or "MemoryError") in report.warnings[0].message
    assert [engine.name for engine in report.engines] == [REPAIR]
    assert report.failed_engines == (DEEPFILTERNET3,)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda blocks: (block[:, 1:] for block in blocks), "frames for 96000"),
        (lambda blocks: (block[:1] for block in blocks), "does not fit"),
        (lambda blocks: (block * np.float32(np.nan) for block in blocks), "not finite"),
    ],
)
def test_an_answer_that_is_none_counts_as_failure(given: Callable[..., Any], says: str) -> None:
    """Wrong lengths, wrong channels and NaN never get into the stem."""
    engine = VoiceEngine(INFO, Faulty(None, given=given))
    result, report = restored(tone(), RestorationStep(DEEPFILTERNET3, 1.0), voice=engine)
    assert np.array_equal(result, tone())
    assert says in report.warnings[0].message


def test_missing_weights_leave_the_stem_and_tell_the_command() -> None:
    """Weights that are gone when they are needed are no failure to repeat: the stem stays, the command is told."""
    why = "the weights are not here: `outboard models pull deepfilternet3` fetches them"
    network = Faulty(FailedPrecondition(why, reason="MODEL_WEIGHTS_MISSING"))
    for engine in (
        VoiceEngine(INFO, network),
        VoiceEngine(replace(INFO, available=False, unavailable_reason=why), network),
    ):
        result, report = restored(tone(), RestorationStep(DEEPFILTERNET3, 1.0), voice=engine)
        assert np.array_equal(result, tone())
        assert "outboard models pull deepfilternet3" in report.warnings[0].message
    assert network.asked == [100]


def test_cancelling_is_no_failure_of_the_engine() -> None:
    """What progress raises ends the work; it is not taken for a fault and tried again."""

    class Cancelled(Exception):
        pass

    network = Faulty(None)

    def progress(fraction: float) -> None:
        if network.asked:
            raise Cancelled

    with pytest.raises(Cancelled):
        restored(tone(), RestorationStep(DEEPFILTERNET3, 1.0), voice=VoiceEngine(INFO, network), progress=progress)
    assert network.asked == [100]


@pytest.mark.parametrize("order", [(REPAIR, DEEPFILTERNET3), (DEEPFILTERNET3, REPAIR), (DEEPFILTERNET3,)])
def test_progress_only_goes_forward(order: tuple[str, ...]) -> None:
    """Whatever the order of the steps, progress never falls and ends at 1."""
    told: list[float] = []
    steps = [RestorationStep(name, 1.0) for name in order]
    clipped = np.clip(tone(), -0.2, 0.2)
    restored(clipped, *steps, voice=VoiceEngine(INFO, Faulty(None)), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_list_tells_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without weights the engine is listed as not available, with the command that fetches them."""
    monkeypatch.setenv("OUTBOARD_MODELS", str(tmp_path))
    monkeypatch.setattr(deployment, "missing_packages", lambda model: ())
    info = deployment.Deployment(Settings()).voice().info
    assert not info.available
    assert info.unavailable_error == "MODEL_WEIGHTS_MISSING"
    assert "outboard models pull deepfilternet3" in info.unavailable_reason
