"""`outboard restore` as a user runs it: what it mends, what it leaves, what it tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from outboard.audio.demo import synthesise
from outboard.cli import main

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
def run(
    folder: Path, served_mesh: ServedMesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command in this process, on the store of the mesh that runs; what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OUTBOARD_STORE_DIRECTORY", str(served_mesh.store))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["outboard", "restore", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert caught.value.code == code, f"exit code {caught.value.code}, not {code}: {said.out}{said.err}"
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
        ("repair=1.5", "INVALID_ARGUMENT", "amount is 1.5, must be 0 to 1"),
        ("polish", "ENGINE_UNKNOWN", "'polish'"),
    ],
)
def test_a_step_that_cannot_be_is_refused(run: Run, step: str, reason: str, says: str) -> None:
    """The option, its value and what is allowed are named, and nothing is computed."""
    error = json.loads(run("drums.wav", "--step", step, "-o", "bad", "--json", code=2))["error"]
    assert error["reason"] == reason, error
    assert says in error["message"], error
