"""`outboard restore` as a user runs it: what it mends, what it leaves, what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from scipy import signal

from outboard.audio.demo import synthesise
from outboard.client import RestorerClient
from outboard.v1 import audio_pb2
from outboard.v1.restorer_service_pb2 import RestorationSettings
from tests.integration.cli_bench import Outboard

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

RATE = 48_000
Run = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice that was clipped by 6 dB, and clean drums, of four seconds each."""
    folder = tmp_path_factory.mktemp("stems")
    stems = synthesise(27, 6.0).stems
    voice, drums = (stems[name][:, -4 * RATE :] for name in ("vocals", "drums"))
    level = 0.5 * np.max(np.abs(voice))
    for name, audio in (("lead vox", np.clip(voice, -level, level)), ("drums", drums)):
        soundfile.write(folder / f"{name}.wav", audio.T, RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def run(entered: Outboard, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on a wide terminal; what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setenv("COLUMNS", "200")
        said = entered("restore", *arguments, code=code)
        return said.out if code == 0 or "--json" in arguments else said.err

    return run


def samples(path: Path) -> np.ndarray:
    audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return audio


def test_what_is_clipped_is_mended_and_what_is_clean_stays(run: Run, folder: Path) -> None:
    """The report tells of every stem what was found, done, changed and left alone; the page says it too. A voice is
    known by its name."""
    job: dict[str, Any] = json.loads(run("lead vox.wav", "drums.wav", "-o", "out", "--json"))
    told = job["report"]["restorations"]
    done = {action["treatment"]: action for action in told["lead vox"]["actions"]}
    assert done["declip"]["amount"] == 1.0
    assert done["declip"]["after"] < done["declip"]["before"] / 2
    assert all(action["reason"] for action in done.values())
    assert done["sibilance"]["reason"] != "not a voice"
    assert told["drums"]["unchanged"]
    assert np.array_equal(samples(folder / "out/stems/drums.wav"), samples(folder / "drums.wav"))
    assert not np.array_equal(samples(folder / "out/stems/lead vox.wav"), samples(folder / "lead vox.wav"))
    page = (folder / "out/report.html").read_text()
    for part in ("<h2>Restoration</h2>", "clipping", "Came back bit for bit", "Left alone, and why"):
        assert part in page, part


def test_a_person_sees_what_was_mended(run: Run) -> None:
    """A line per stem, each measure before and after, and the stems that needed none."""
    shown = run("lead vox.wav", "drums.wav", "-o", "shown")
    for part in ("lead vox mended: clipping ", " samples → ", "nothing to mend: drums"):
        assert part in shown, f"{part} is missing in:\n{shown}"


@pytest.fixture(scope="module")
def beyond(folder: Path) -> dict[str, np.ndarray]:
    """What this machine's mesh has no engine for, in the same folder: a noisy voice, without the network's weights, and
    drums that were cut off at 8 kHz, without a GPU.
    """
    voice, drums = synthesise(27, 6.0).stems["vocals"][:, -4 * RATE :], samples(folder / "drums.wav").T
    noise = np.random.default_rng(2).normal(size=voice.shape)
    noise *= np.sqrt(np.mean(voice**2) / np.mean(noise**2)) * 10 ** (-12.0 / 20.0)
    low_pass = signal.firwin(1_001, 8_000, fs=RATE)
    found = {"noisy vox": voice + noise, "dull drums": signal.oaconvolve(drums, low_pass[None], mode="same", axes=1)}
    for name, audio in found.items():
        found[name] = audio.astype(np.float32)
        soundfile.write(folder / f"{name}.wav", found[name].T, RATE, subtype="FLOAT")
    return found


async def test_what_no_engine_here_can_do_is_told(
    run: Run, folder: Path, served_mesh: ServedMesh, beyond: dict[str, np.ndarray]
) -> None:
    """Noise that nothing can take is told with the command that would help, on the terminal and open on the page; a
    band that the next engine makes says in whose place. A job tells what the service does where no step is given.
    """
    shown = run("noisy vox.wav", "dull drums.wav", "-o", "beyond")
    assert "noisy vox keeps its noise: " in shown, shown
    assert "outboard models pull deepfilternet3" in shown, shown
    assert "dull drums mended: bandwidth 8.0 kHz → " in shown, shown
    assert "nothing to mend" not in shown, shown
    page = (folder / "beyond/report.html").read_text()
    assert 0 < page.find("noise stays at ") < page.rfind("<details>"), "stands before what is folded away"
    report = json.loads((folder / "beyond/report.json").read_text())["restorations"]
    async with RestorerClient(f"unix:{served_mesh.store}/run/restorer.sock") as restorer:
        for name, audio in beyond.items():
            role = "lead_vocal" if name == "noisy vox" else "drums"
            settings = RestorationSettings(role=audio_pb2.Role.Value(f"ROLE_{role.upper()}"))
            _, alone = await restorer.restore(audio, RATE, settings)
            told = [action["reason"] for action in report[name]["actions"]]
            assert told == [action.reason for action in alone.actions]
            assert not alone.warnings
    [drawn] = [action for action in report["dull drums"]["actions"] if action["engine"] == "audiosr"]
    assert "audiosr cannot run, bandwidth takes its place: " in drawn["reason"]
    assert not drawn.get("unmet")


def test_a_chain_of_ones_own(run: Run, folder: Path) -> None:
    """Steps run in the order given with their amounts; amount 0 leaves the stem bit for bit."""
    job = json.loads(run("lead vox.wav", "--step", "repair=0", "--step", "bandwidth", "-o", "own", "--json"))
    report = job["report"]["restorations"]["lead vox"]
    assert [step["engine"] for step in job["restoration"]["steps"]] == ["repair", "bandwidth"]
    assert report["unchanged"], report["actions"]
    assert np.array_equal(samples(folder / "own/stems/lead vox.wav"), samples(folder / "lead vox.wav"))


@pytest.mark.parametrize(
    ("step", "reason", "says"),
    [
        ("repair=much", "INVALID_ARGUMENT", "'much'"),
        ("deepfilternet3,attenuation_limit_db=", "INVALID_ARGUMENT", "attenuation_limit_db is a number"),
        ("deepfilternet3=1,diffusion_steps=2.5", "INVALID_ARGUMENT", "a whole number, not '2.5'"),
        ("audiosr,diffusion_steps=99999999999", "INVALID_ARGUMENT", "'99999999999'"),
        ("repair,loudness=3", "INVALID_ARGUMENT", "'loudness' is no field of a step"),
        ("audiosr,guidance_scale=30", "INVALID_ARGUMENT", "guidance_scale"),
        ("deepfilternet3=1,attenuation_limit_db=0", "INVALID_ARGUMENT", "is 0, must be above 0 to 100"),
        ("repair=1.5", "INVALID_ARGUMENT", "amount is 1.5, must be 0 to 1"),
        ("polish", "ENGINE_UNKNOWN", "'polish'"),
    ],
)
def test_a_step_that_cannot_be_is_refused(run: Run, step: str, reason: str, says: str) -> None:
    """The option, its value and what is allowed are named, and nothing is computed."""
    error = json.loads(run("drums.wav", "--step", step, "-o", "bad", "--json", code=2))["error"]
    assert error["reason"] == reason, error
    assert says in error["message"], error
