"""`--plan-only` and `--plan` as a user runs them, on the real mesh: printed, edited, rendered, and refused by place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, decode, encode
from tests.integration.cli_bench import Outboard

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

SECONDS = 6.0
STEMS = ("vocals.wav", "drums.wav", "bass.wav")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A song, and stems of it, where the commands run."""
    folder = tmp_path_factory.mktemp("plans")
    demo = synthesise(52, SECONDS)
    encode(folder / "song.wav", [demo.song], demo.sample_rate_hertz, FileSpec("wav", "24"))
    for name in STEMS:
        stem = demo.stems[Path(name).stem]
        encode(folder / name, [stem], demo.sample_rate_hertz, FileSpec("wav", "32f"))
    return folder


@pytest.fixture
def outboard(entered: Outboard, served_mesh: ServedMesh, monkeypatch: pytest.MonkeyPatch) -> Outboard:
    """Runs the command on the mesh by its address."""
    monkeypatch.setenv("OUTBOARD_SERVER", served_mesh.address)
    return entered


def test_a_mix_is_planned_edited_and_rendered(outboard: Outboard, folder: Path) -> None:
    """Standard output is the plan; unedited it renders the bytes of the mix without it; a fader turned down in the file
    is turned down in the mix."""
    printed = outboard("mix", *STEMS, "--plan-only").out
    assert not (folder / "out").exists(), "a plan alone leaves no folder"
    (folder / "mix.json").write_text(printed)
    outboard("mix", *STEMS, "-o", "plain")
    outboard("mix", *STEMS, "-o", "planned", "--plan", "mix.json")
    assert (folder / "planned/mix.wav").read_bytes() == (folder / "plain/mix.wav").read_bytes()
    plan = json.loads(printed)
    strips = {strip["stem"]: strip for strip in plan["mix_plan"]["strips"]}
    assert set(strips) == {"vocals", "drums", "bass"}
    for name in ("drums", "bass"):
        strips[name]["gain_db"] = -144.0
    plan["mix_plan"]["peak_target_dbfs"] = -20.0
    (folder / "edited.json").write_text(json.dumps(plan))
    outboard("mix", *STEMS, "-o", "edited", "--plan", "edited.json")
    report = json.loads((folder / "edited/report.json").read_text())
    assert report["mix"]["sample_peak_dbfs"] <= -19.9
    gains = {strip["name"]: strip.get("gain_db", 0.0) for strip in report["mix"]["strips"]}
    assert gains["bass"] == -144.0


def test_settings_of_the_console_are_options_of_the_command(outboard: Outboard) -> None:
    """Each option reaches the console: it changes in the plan what it is for; one out of range is refused with its
    field and what is allowed, and a label that is none with the nearest."""
    decided = json.loads(outboard("mix", *STEMS, "--plan-only").out)["mix_plan"]

    def planned(*options: str) -> dict[str, Any]:
        return json.loads(outboard("mix", *STEMS, *options, "--plan-only").out)["mix_plan"]

    def gains(plan: dict[str, Any]) -> list[float]:
        return [strip["gain_db"] for strip in plan["strips"]]

    def left_out(plan: dict[str, Any]) -> set[str]:
        chains = [part["chain"] for part in (*plan["strips"], *plan["buses"])]
        return {processor["label"] for chain in chains for processor in chain if processor.get("bypass")}

    assert any(gains(decided))
    assert not left_out(decided)
    assert gains(planned("--respect-user-gains")) == [0.0, 0.0, 0.0]
    assert planned("--no-respect-user-gains") == decided
    assert planned("--peak-target-dbfs", "-11.5")["peak_target_dbfs"] == -11.5
    assert planned("--intensity", "100") == decided != planned("--intensity", "30")
    chains = [strip["chain"] for strip in planned("--width-cap", "0.25")["strips"]]
    narrowed = [
        processor["stereo_width"]["side_gain"]
        for chain in chains
        for processor in chain
        if processor["label"] == "width"
    ]
    assert narrowed
    assert max(narrowed) <= 0.25
    labels = {processor["label"] for strip in decided["strips"] for processor in strip["chain"]}
    first, second, *_ = sorted(labels)
    assert left_out(planned("--bypass", first, "--bypass", second)) == {first, second}
    for option, value, allowed in (
        ("--width-cap", "1.5", "0 to 1.4"),
        ("--peak-target-dbfs", "1", "-40 to 0"),
        ("--intensity", "101", "0 to 100"),
        ("--bypass", "compresor", "did you mean 'compressor'"),
    ):
        error = outboard("mix", *STEMS, option, value, "--json", code=2).document["error"]
        assert error["violations"][0]["field"] == "job.mix." + option.removeprefix("--").replace("-", "_")
        assert allowed in error["message"]


def test_a_master_is_planned_edited_and_rendered(outboard: Outboard, folder: Path) -> None:
    """One file holds both plans; unedited it renders the bytes of mix and master without it, and one that has the
    master's alone leaves the mix to the console; a ceiling lowered in the file holds in the master."""
    outboard("master", "song.wav", "--plan-only", "--intent", "loud", "-o", "plans/both.json")
    plans = json.loads((folder / "plans/both.json").read_text())
    assert list(plans) == ["mix_plan", "master_plan"]
    assert plans["master_plan"]["intent"] == "MASTER_INTENT_LOUD"
    outboard("master", "song.wav", "--intent", "loud", "-o", "without")
    outboard("master", "song.wav", "--plan", "plans/both.json", "-o", "with")
    for name in ("mix.wav", "master.wav"):
        assert (folder / "with" / name).read_bytes() == (folder / "without" / name).read_bytes(), name
    plans["master_plan"]["ceiling_dbtp"] = -6.0
    plans["master_plan"]["deliverables"] = [{"name": "quiet", "container": "CONTAINER_FLAC"}]
    (folder / "quiet.json").write_text(json.dumps({"master_plan": plans["master_plan"]}))
    outboard("master", "song.wav", "--plan", "quiet.json", "-o", "quiet")
    report = json.loads((folder / "quiet/report.json").read_text())
    assert report["after"]["true_peak_dbtp"] <= -5.95
    assert (folder / "quiet/mix.wav").read_bytes() == (folder / "without/mix.wav").read_bytes()
    with decode(folder / "quiet/quiet.flac", sample_rate_hertz=None) as decoded:
        assert decoded.frames == SECONDS * 48_000


def _edited(folder: Path, outboard: Outboard, edit: Callable[[dict[str, Any]], object]) -> Path:
    source = folder / "source.json"
    if not source.exists():
        source.write_text(outboard("mix", *STEMS, "--plan-only").out)
    plan = json.loads(source.read_text())
    edit(plan["mix_plan"])
    path = folder / "wrong.json"
    path.write_text(json.dumps(plan))
    return path


_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "a slip of the pen": (
        lambda plan: plan["strips"][0].update(gain=3.0),
        "mix_plan.strips[0].gain",
        "there is no field 'gain'; did you mean 'gain_db'?",
    ),
    "no such role": (
        lambda plan: plan["strips"][1].update(role="ROLE_DRUM"),
        "mix_plan.strips[1].role",
        "there is no \"ROLE_DRUM\"; did you mean 'ROLE_DRUMS'?",
    ),
    "a word for a number": (
        lambda plan: plan.update(trim_db="loud"),
        "mix_plan.trim_db",
        'a number stands here, not "loud"',
    ),
    "out of range": (
        lambda plan: plan["strips"][2].update(pan=1.5),
        "job.mix_plan.strips[2].pan",
        "-1 to 1",
    ),
    "a stem that is not there": (
        lambda plan: plan["strips"][2].update(stem="vocal"),
        "job.mix_plan.strips[2].stem",
        "there is no stem 'vocal'; did you mean 'vocals'?",
    ),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_wrong_plan_is_told_by_its_place(outboard: Outboard, folder: Path, fault: str) -> None:
    """Exit code 2 with the place and what may stand there, before anything is rendered."""
    edit, place, says = _FAULTS[fault]
    path = _edited(folder, outboard, edit)
    error = outboard("mix", *STEMS, "--plan", path.name, "-o", "no", "--json", code=2).document["error"]
    assert error["violations"][0]["field"] == place, error
    assert says in error["violations"][0]["description"], error
    assert not (folder / "no").exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("mix", *STEMS, "--bypass-all"), "job.mix.bypass_all"),
        (("mix", *STEMS, "--preset", "rock"), "job.preset"),
        (("mix", *STEMS, "--role", "vocals.wav=kick"), "job.stems.stems[0].role"),
        (("mix", *STEMS, "--plan-only"), "job.plan_only"),
    ],
)
def test_options_that_a_plan_contradicts(
    outboard: Outboard, folder: Path, options: tuple[str, ...], field: str
) -> None:
    """OPTIONS_CONFLICT names what would be ignored."""
    path = _edited(folder, outboard, lambda plan: plan)
    error = outboard(*options, "--plan", path.name, "--json", code=2).document["error"]
    assert error["reason"] == "OPTIONS_CONFLICT"
    assert error["violations"][0]["field"] == field


def test_passthrough_and_intensity_contradict_each_other(outboard: Outboard, folder: Path) -> None:
    """The engine that delivers a mix as it is refuses what it would ignore."""
    arguments = ("master", "song.wav", "--engine", "passthrough", "--intensity", "50", "--json")
    error = outboard(*arguments, code=2).document["error"]
    assert error["reason"] == "OPTIONS_CONFLICT"
    assert error["violations"][0]["field"] == "job.mastering.intensity"


def test_places_that_no_plan_can_go_to(outboard: Outboard, folder: Path) -> None:
    """A folder for a plan, a plan that would overwrite its source or be overwritten, a file that is not there."""
    (folder / "directory").mkdir()
    outboard("mix", *STEMS, "--plan-only", "-o", "directory", code=2)
    outboard("mix", *STEMS, "--plan-only", "-o", "vocals.wav", code=2)
    outboard("mix", *STEMS, "--plan", "nowhere.json", code=3)
