"""`outboard` as a user runs it: a process of its own, its exit code, what it prints, and the files it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from outboard.audio.files import FileSpec, decode, encode
from tests.integration.cli_bench import Ended, Outboard, work_folder

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

COMMAND = Path(sys.executable).with_name("outboard")
NULL_DBFS = -90.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_folder(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def outboard(folder: Path, served_mesh: ServedMesh) -> Outboard:
    """Runs the command on the store of the mesh that runs; checks what holds for every command."""

    def run(*arguments: object, code: int = 0, **environment: str) -> Ended:
        process = subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "OUTBOARD_STORE_DIRECTORY": str(served_mesh.store), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        said = process.stdout + process.stderr
        assert process.returncode == code, f"exit code {process.returncode}, not {code}: {said}"
        assert "Traceback" not in said
        assert str(served_mesh.store) not in said, "a path of the store was printed"
        return Ended(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="module")
def mastered(outboard: Outboard, folder: Path) -> dict[str, Any]:
    """The job of a first master, whose files lie in ``first``."""
    ended = outboard("master", "song.wav", "-o", "first", "--json")
    assert "%" not in ended.err, "progress although no terminal is there"
    job: dict[str, Any] = ended.document
    return job


def _samples(path: Path) -> NDArray[np.float32]:
    with decode(path, sample_rate_hertz=None) as decoded:
        return decoded.array.copy()


def _null_dbfs(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(20.0 * np.log10(np.abs(one - other).max() + 1e-12))


def test_master_leaves_all_files(mastered: dict[str, Any], folder: Path) -> None:
    """`master` writes master, mix, stems, preview and report; standard output is the job with its report."""
    out = folder / "first"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    stems = {f"stems/{name}.wav" for name in ("vocals", "drums", "bass", "other")}
    assert files == {"master.wav", "mix.wav", "preview_ab.mp3", "report.json", "report.html"} | stems
    assert mastered["state"] == "STATE_SUCCEEDED"
    info = soundfile.info(out / "master.wav")
    assert (info.frames, info.samplerate, info.subtype) == (6 * 48_000, 48_000, "PCM_24")
    report = json.loads((out / "report.json").read_text())
    assert report["after"] == mastered["report"]["after"]


def test_known_song_is_not_done_again(
    outboard: Outboard, mastered: dict[str, Any], folder: Path, server: tuple[str, str]
) -> None:
    """The same song again reuses every stage and gives the same bytes; a person gets a table and the files' names."""
    ended = outboard("master", "song.wav", "-o", "again")
    assert (folder / "again" / "master.wav").read_bytes() == (folder / "first" / "master.wav").read_bytes()
    assert "LUFS" in ended.out
    assert "again/stems/vocals.wav" in ended.out
    job = outboard("jobs", "list", "--most", 1, "--json", *server).document["jobs"][0]
    assert job["name"] != mastered["name"]
    assert [stage.get("reused") for stage in job["progress"]] == [True] * 4


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        (("--format", "flac", "--bit-depth", "16", "--sample-rate", 44100), "master.flac", (44_100, "FLAC", "PCM_16")),
        (("--format", "mp3", "--sample-rate", 44100), "master.mp3", (44_100, "MP3", "MPEG_LAYER_III")),
        (("--bit-depth", "32f", "--sample-rate", 96000), "master.wav", (96_000, "WAV", "FLOAT")),
    ],
)
def test_delivered_formats(
    outboard: Outboard,
    mastered: dict[str, Any],
    folder: Path,
    options: tuple[object, ...],
    name: str,
    expected: tuple[int, str, str],
) -> None:
    """`--format`, `--bit-depth` and `--sample-rate` decide the delivered file, whose length is the song's."""
    out = folder / name
    job = outboard("master", "song.wav", "-o", out, *options, "--json").document
    info = soundfile.info(out / name)
    assert (info.samplerate, info.format.removesuffix("EX"), info.subtype) == expected
    assert _samples(out / name).shape[1] == 6 * expected[0]
    assert [stage.get("reused", False) for stage in job["progress"]] == [True, True, True, False]


def test_separate_into_two(outboard: Outboard, folder: Path) -> None:
    """`separate --stems 2` leaves vocals and instrumental, which sum to the song."""
    outboard("separate", "song.wav", "-o", "two", "--stems", 2, "--engine", "passthrough", "--json")
    stems = sorted((folder / "two" / "stems").iterdir())
    assert [path.name for path in stems] == ["instrumental.wav", "vocals.wav"]
    null = _null_dbfs(_samples(stems[0]) + _samples(stems[1]), _samples(folder / "song.wav"))
    assert null <= NULL_DBFS, f"the stems' sum differs from the song by {null:.1f} dBFS"


def test_bypassed_mix_is_the_sum(outboard: Outboard, folder: Path) -> None:
    """`mix --bypass-all` of three stems is their sum; roles are taken by file name, whatever characters it has."""
    files = [f"{name} [dry].wav" for name in ("vocals", "drums", "bass")]
    roles = ("--role", f"{files[0]}=lead_vocal", "--role", f"{files[1]}=drums")
    job = outboard("mix", *files, *roles, "--bypass-all", "-o", "sum", "--json").document
    assert [stem.get("role") for stem in job["stems"]["stems"]] == ["ROLE_LEAD_VOCAL", "ROLE_DRUMS", None]
    expected = sum((_samples(folder / file) for file in files[1:]), start=_samples(folder / files[0]))
    null = _null_dbfs(_samples(folder / "sum" / "mix.wav"), expected)
    assert null <= NULL_DBFS, f"the mix differs from the stems' sum by {null:.1f} dBFS"


def test_analyze(entered: Outboard) -> None:
    """`analyze --json` is one document with the contract's field names."""
    analysis = entered("analyze", "song.wav", "--json").document
    assert int(analysis["frames"]) == 6 * 48_000
    assert len(analysis["band_levels"]) == 6
    assert -40.0 < analysis["integrated_lufs"] < 0.0


def test_analyze_for_a_person(entered: Outboard) -> None:
    """`analyze` shows every measurement as a row."""
    shown = entered("analyze", "song.wav").out
    for part in ("integrated_lufs", "level, 200-500 Hz", "side/mid", "shimmer_index", "dc_offset"):
        assert part in shown, f"{part} is missing in:\n{shown}"


def test_a_result_never_takes_the_place_of_an_input(entered: Outboard, folder: Path) -> None:
    """An output folder in which the result would overwrite an input is refused before anything is sent."""
    (folder / "taken" / "stems").mkdir(parents=True)
    own = (folder / "song.wav").read_bytes()
    for name in ("mix.wav", "master.wav", "stems/vocals.wav"):
        (folder / "taken" / name).write_bytes(own)
    for command in (
        ("mix", "taken/mix.wav", "song.wav"),
        ("master", "taken/master.wav"),
        ("separate", "taken/stems/vocals.wav"),
    ):
        ended = entered(*command, "-o", "taken", "--json", code=2)
        assert ended.document["error"]["reason"] == "OPTIONS_CONFLICT"
        assert (folder / command[1]).read_bytes() == own


def test_a_master_of_other_stems(entered: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """`master` takes the number of stems and the engine that separates; where no weights here give so many, the command
    that fetches them is told before anything is computed."""
    options = ("--stems", "2", "--separation-engine", "passthrough", "-o", "two", "--json")
    job = entered("master", "song.wav", *options, *server).document
    assert job["report"]["separation"]["engine"]["name"] == "passthrough"
    assert {path.stem for path in (folder / "two" / "stems").iterdir()} == {"vocals", "instrumental"}
    for command in ("master", "separate"):
        error = entered(command, "song.wav", "--stems", "6", "-o", "six", "--json", *server, code=6).document["error"]
        assert error["reason"] == "MODEL_WEIGHTS_MISSING"
        assert "outboard models pull htdemucs_6s" in error["message"]


def test_a_preset_says_how_to_separate(entered: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """A file's table [separation] is what a song is separated by; an option of the command counts over it; the report
    tells who chose what, and so does the command. An engine that does not make so many stems, and a preset that says
    nothing of separation, are refused before anything is computed.
    """
    (folder / "base.toml").write_text('[separation]\nengine = "spectral"\nstem_count = 4\n')
    (folder / "two.toml").write_text('extends = "base.toml"\n[separation]\nstem_count = 2\nresidual = "fold"\n')
    separate = ("separate", "song.wav", "--preset", "two.toml")
    report = entered(*separate, "-o", "by_preset", "--json", *server).document["report"]
    used = {each["name"]: (each["value"], each["source"], each.get("preset")) for each in report["separation_settings"]}
    by_preset = "SETTING_SOURCE_PRESET", "two"
    assert used == {
        "engine": ("spectral", *by_preset),
        "stem_count": ("2", *by_preset),
        "residual": ("fold", *by_preset),
    }
    assert report["separation"]["engine"]["name"] == "spectral"
    assert {path.stem for path in (folder / "by_preset" / "stems").iterdir()} == {"vocals", "instrumental"}
    shown = entered(*separate, "--engine", "passthrough", "-o", "by_option", *server).out
    for part in (
        "passthrough 1 (numpy) made 2 stems",
        "engine passthrough by the request",
        "stem_count 2 by the preset 'two'",
    ):
        assert part in shown, f"{part} is missing in:\n{shown}"
    assert "of real time" in shown
    error = entered(*separate, "--stems", "6", "-o", "six", "--json", *server, code=2).document["error"]
    assert error["message"] == "the engine 'spectral' separates into 2, 4 stems, not 6"
    assert [each["field"] for each in error["violations"]] == ["job.separation.stem_count"]
    error = entered("separate", "song.wav", "--preset", "pop", "--json", *server, code=2).document["error"]
    assert error["reason"] == "OPTIONS_CONFLICT"


def test_presets_are_checked_and_shown_with_their_separation(entered: Outboard, folder: Path) -> None:
    """`presets check` tells what is wrong with the table, with the nearest name; `presets show` what it says."""
    (folder / "wrong.toml").write_text('[separation]\nengine = "spectrum"\nshifts = 12\n')
    error = entered("presets", "check", "wrong.toml", "--json", code=2).document["error"]
    assert error["reason"] == "PRESET_INVALID"
    told = {each["field"]: each["description"] for each in error["violations"]}
    assert "did you mean 'spectral'?" in told["separation.engine"]
    assert told["separation.shifts"] == "shifts is 12, must be 0 to 10"
    (folder / "fine.toml").write_text('[separation]\nengine = "htdemucs_6s"\nstem_count = 6\n')
    assert entered("presets", "check", "fine.toml").out == "the preset is fine\n"
    document = entered("presets", "show", "fine.toml", "--json").document
    assert document["separation"] == {"engine": "htdemucs_6s", "stem_count": 6}


def test_roles_are_read_from_names(outboard: Outboard) -> None:
    """Stems whose role nobody gave play what their file names say."""
    job = outboard(
        "mix", "drums [dry].wav", "bass [dry].wav", "-o", "by_name", "--role", "drums [dry].wav=hats", "--json"
    )
    strips = {strip["stem"]: strip["role"] for strip in job.document["report"]["mix"]["plan"]["strips"]}
    assert strips == {"drums [dry]": "ROLE_HATS", "bass [dry]": "ROLE_BASS"}


def test_jobs_of_a_server(
    outboard: Outboard, entered: Outboard, folder: Path, mastered: dict[str, Any], server: tuple[str, str]
) -> None:
    """A job's life by `jobs`: created (once per request id), watched, shown, listed, brought, deleted, then unknown."""
    create = ("jobs", "create", "song.wav", "--request-id", "cli", "--json", *server)
    job = outboard(*create).document
    assert outboard(*create).document["name"] == job["name"]
    done = outboard("jobs", "watch", job["name"], "--json", *server).document
    assert done["state"] == "STATE_SUCCEEDED"
    assert entered("jobs", "get", job["name"].removeprefix("jobs/"), "--json", *server).document == done
    listed = entered("jobs", "list", "--state", "succeeded", "--json", *server).document["jobs"]
    assert job["name"] in [entry["name"] for entry in listed]
    files = entered("jobs", "download", job["name"], "-o", "brought", "--json", *server).document["files"]
    assert len(files) == len(done["artifacts"])
    assert (folder / "brought" / "master.wav").read_bytes() == (folder / "first" / "master.wav").read_bytes()
    assert entered("jobs", "cancel", job["name"], "--json", *server).document["state"] == "STATE_SUCCEEDED"
    assert entered("jobs", "delete", job["name"], "--json", *server).document == {"deleted": job["name"]}
    error = entered("jobs", "get", job["name"], "--json", *server, code=3).document["error"]
    assert error["reason"] == "NOT_FOUND"


def test_a_job_from_a_file(entered: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """`jobs create --job` takes the whole contract as JSON; a field that a job has not is exit code 2 and named."""
    wanted = {"stages": ["STAGE_SEPARATE"], "separation": {"stem_count": 2}, "display_name": "from a file"}
    (folder / "job.json").write_text(json.dumps(wanted))
    job = entered("jobs", "create", "song.wav", "--job", "job.json", "--json", *server).document
    assert (job["display_name"], job["stages"], job["separation"]) == ("from a file", *list(wanted.values())[:2])
    entered("jobs", "cancel", job["name"], *server)
    (folder / "wrong.json").write_text('{"stagse": []}')
    error = entered("jobs", "create", "song.wav", "--job", "wrong.json", "--json", *server, code=2).document["error"]
    assert "stagse" in error["message"]


def test_cancelled_and_unfinished_jobs(outboard: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """Deleting a job that runs is exit code 6; watching one that was cancelled is exit code 5, with the reason."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 60 * 48_000))
    encode(folder / "long.wav", [noise.astype(np.float32)], 48_000, FileSpec("wav", "16"))
    name = outboard("jobs", "create", "long.wav", "--json", *server).document["name"]
    assert outboard("jobs", "delete", name, "--json", *server, code=6).document["error"]["reason"] == "JOB_STATE"
    assert outboard("jobs", "cancel", name, "--json", *server).document["state"] == "STATE_CANCELLED"
    assert outboard("jobs", "watch", name, "--json", *server, code=5).document["error"]["reason"] == "CANCELLED"
    outboard("jobs", "delete", name, *server)


def test_models_and_presets(entered: Outboard, folder: Path) -> None:
    """Models and sound profiles are listed and shown; `presets check` names what is wrong with one's own."""
    assert {"name", "stage", "licence", "state"} <= set(entered("models", "list", "--json").document["models"][0])
    assert "balanced" in entered("presets", "list", "--json").document["presets"]
    values = entered("presets", "show", "balanced", "--json").document["values"]
    (folder / "good.toml").write_text('extends = "balanced"\n')
    (folder / "bad.toml").write_text("[mix.vocals]\npresense_db = 2.0\n")
    assert entered("presets", "check", "good.toml", "--json").document["values"] == values
    error = entered("presets", "check", "bad.toml", "--json", code=2).document["error"]
    assert error["reason"] == "PRESET_INVALID"
    assert "mix.vocals.presence_db" in error["message"]


def test_preset_file_travels_with_a_job(entered: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """`--preset ./mine.toml` works on a server that has no such file: it resolves the file's numbers, over those that
    the file extends; what is wrong in one is told before anything is sent."""
    (folder / "parent.toml").write_text('extends = "acoustic"\n[master]\ncorrection = 0.1\n')
    (folder / "mine.toml").write_text('extends = "parent.toml"\n[mix.vocals]\npresence_db = 1.25\n')
    job = entered("jobs", "create", "song.wav", "--preset", "./mine.toml", "--json", *server).document
    resolved = job["resolved_preset"]
    assert resolved["name"] == "mine"
    acoustic = entered("presets", "show", "acoustic", "--json").document["values"]
    assert resolved["values"] == acoustic | {"master.correction": 0.1, "mix.vocals.presence_db": 1.25}
    entered("jobs", "cancel", job["name"], "--json", *server)
    (folder / "wrong.toml").write_text("[mix]\nmud_cut = 1.0\n")
    error = entered("master", "song.wav", "--preset", "wrong.toml", "--json", *server, code=2).document["error"]
    assert error["reason"] == "PRESET_INVALID"
    assert "'mix.mud_cut'; did you mean 'mix.mud_cut_db'?" in error["message"]
    error = entered("mix", "song.wav", "--preset", "none.toml", "--json", *server, code=3).document["error"]
    assert error["reason"] == "PRESET_UNKNOWN"


def test_error_for_a_person(outboard: Outboard) -> None:
    """Without `--json` an error stands on standard error, with its reason, and standard output stays empty."""
    ended = outboard("analyze", "none.wav", code=3)
    assert ended.out == ""
    assert ended.err.startswith("NOT_FOUND ")
    wrong = outboard("master", "song.wav", code=2, OUTBOARD_SERVER_MAXIMUM_MESSAGE_BYTES="many")
    assert "OUTBOARD_SERVER_MAXIMUM_MESSAGE_BYTES" in wrong.err
