"""What `outboard` refuses, and how: exit codes, and reasons in words for a person and for a program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from outboard import errors
from outboard.cli.output import exit_code
from outboard.client import Client
from outboard.v1 import job_service_pb2
from tests.integration.cli_bench import Outboard, work_folder

if TYPE_CHECKING:
    from tests.conftest import ServedMesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_folder(tmp_path_factory.mktemp("refused"))


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("master",), 2, "OPTIONS_CONFLICT"),
        (("master", "song.wav", "--format", "ogg"), 2, "INVALID_ARGUMENT"),
        (("master", "song.wav", "--intent", "reference"), 2, "REFERENCE_UNSUITABLE"),
        (("master", "song.wav", "--intent", "custom"), 2, "INVALID_ARGUMENT"),
        (("album", "song.wav", "song.wav", "--intent", "custom"), 2, "INVALID_ARGUMENT"),
        (("mix", "letter.wav", "--role", "letter.wav=trumpet"), 2, "INVALID_ARGUMENT"),
        (("mix", "letter.wav", "--role", "letter.wav=kick", "--role", "letter.wav=hats"), 2, "OPTIONS_CONFLICT"),
        (("mix", "letter.wav", "./letter.wav"), 2, "INVALID_ARGUMENT"),
        (("bogus",), 2, "INVALID_ARGUMENT"),
        (("analyze", "letter.wav"), 2, "AUDIO_UNREADABLE"),
        (("analyze", "none.wav"), 3, "NOT_FOUND"),
        (("master", "none.wav"), 3, "NOT_FOUND"),
        (("presets", "show", "balancd"), 3, "PRESET_UNKNOWN"),
        (("jobs", "get", "x", "--server", "127.0.0.1:9"), 4, "UNAVAILABLE"),
        (("jobs", "get", "x", "--server", "nowhere"), 2, "INVALID_ARGUMENT"),
        (("serve", "--listen", "nowhere"), 2, "INVALID_ARGUMENT"),
        (("serve", "--listen", "127.0.0.1:0"), 4, "UNAVAILABLE"),
    ],
)
def test_exit_codes(entered: Outboard, arguments: tuple[str, ...], code: int, reason: str) -> None:
    """Each kind of failure has its documented exit code, and its reason in one JSON document on standard output."""
    error = entered(*arguments, "--json", code=code).document["error"]
    assert error["reason"] == reason, error["message"]
    assert error["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("master", "letter.wav"), 2, "AUDIO_UNREADABLE"),
        (("master", "song.wav", "-o", "letter.wav"), 2, "INVALID_ARGUMENT"),
        (("master", "song.wav", "--preset", "electronik"), 2, "PRESET_UNKNOWN"),
        (("master", "song.wav", "--ceiling-dbtp", "3"), 2, "INVALID_ARGUMENT"),
        (("master", "song.wav", "--format", "flac", "--bit-depth", "32f"), 2, "INVALID_ARGUMENT"),
        (("separate", "song.wav", "--stems", "3"), 2, "INVALID_ARGUMENT"),
        (("separate", "song.wav", "--engine", "none"), 2, "ENGINE_UNKNOWN"),
        (("jobs", "get", "../x"), 2, "NAME_INVALID"),
        (("jobs", "watch", "0123"), 3, "NOT_FOUND"),
    ],
)
def test_exit_codes_of_a_server(
    entered: Outboard, server: tuple[str, str], arguments: tuple[str, ...], code: int, reason: str
) -> None:
    """What the server refuses, or what fails a job, has the exit code of its kind and the server's reason."""
    error = entered(*arguments, *server, "--json", code=code).document["error"]
    assert error["reason"] == reason, error["message"]


def test_too_many_stems_are_refused_before_any_is_sent(
    entered: Outboard, folder: Path, served_mesh: ServedMesh
) -> None:
    """Thirteen stems are refused with the server's own reason and sentence, without a server; twelve go to it."""
    for index in range(13):
        (folder / f"part {index}.wav").write_bytes((folder / "bass [dry].wav").read_bytes())
    parts = [f"part {index}.wav" for index in range(13)]
    error = entered("mix", *parts, "--json", "--server", "127.0.0.1:9", code=2).document["error"]
    asked = job_service_pb2.Job(stages=[job_service_pb2.STAGE_MIX])
    for part in parts:
        asked.stems.stems.add(name=part, upload="uploads/none")
    with Client(served_mesh.address) as client, pytest.raises(errors.InvalidInput) as caught:
        client.create_job(asked)
    assert (error["reason"], error["message"]) == (caught.value.reason, caught.value.message)
    ended = entered("mix", *parts[:12], "--json", "--server", "127.0.0.1:9", code=4)
    assert ended.document["error"]["reason"] == "UNAVAILABLE"


def test_an_unfit_reference_is_told_by_its_file(entered: Outboard, folder: Path, server: tuple[str, str]) -> None:
    """What the server says of a reference by its place is printed with the file's name."""
    soundfile.write(folder / "quiet hit.wav", np.zeros((6 * 48_000, 2)), 48_000)
    references = ("--reference", "song.wav", "--reference", "quiet hit.wav")
    arguments = ("master", "vocals [dry].wav", *references, *server, "--json")
    error = entered(*arguments, code=2).document["error"]
    assert error["reason"] == "REFERENCE_UNSUITABLE"
    assert error["message"] == "'quiet hit.wav': the reference is silent"
    assert [violation["field"] for violation in error["violations"]] == ["job.references[1]"]


def test_fault_of_ours_is_one() -> None:
    """Whatever has no exit code of its own is 1."""
    assert exit_code(errors.Internal("broken")) == 1
