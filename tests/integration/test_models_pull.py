"""`outboard models pull` as a user runs it: its bar, its resumption, and what it says of bytes that are not what they
should be.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.file_site import Site, serving_files

pytest.importorskip("torch")
pytest.importorskip("safetensors")

COMMAND = Path(sys.executable).with_name("outboard")
ARCHIVE = "DeepFilterNet3.zip"
_MEGABYTE = 1_000_000
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    """A command that has ended; what it showed has no control codes of the terminal."""

    code: int
    out: str
    err: str


@pytest.fixture
def site() -> Iterator[Site]:
    """A mirror of the publishers' files, with an archive of 3 MB in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("DeepFilterNet3/config.ini", "[train]\n")
        opened.writestr("DeepFilterNet3/checkpoints/model_120.ckpt.best", os.urandom(3 * _MEGABYTE))
    with serving_files() as served:
        served.files[ARCHIVE] = stream.getvalue()
        yield served


def pull(site: Site, folder: Path, name: str, *options: str, terminal: bool = False) -> Ended:
    """Runs the command; with ``terminal`` its standard error is one."""
    variables = {
        **os.environ, "OUTBOARD_MODELS": str(folder), "OUTBOARD_MODELS_MIRROR": site.address,
        "TERM": "xterm", "COLUMNS": "120",
    }  # fmt: skip
    command = [COMMAND, "models", "pull", name, *options]
    if not terminal:
        ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        return Ended(ended.returncode, ended.stdout, ended.stderr)
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with open(ours, "rb", buffering=0) as screen:
            try:
                while piece := screen.read(4096):
                    shown.append(piece)
            except OSError:  # how a terminal says that its last program has ended
                pass

    reading = threading.Thread(target=read)
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        reading.start()
        out = process.communicate(timeout=100)[0]
    reading.join()
    return Ended(process.returncode, out, _CONTROL.sub("", b"".join(shown).decode()))


def test_a_terminal_shows_a_bar(site: Site, tmp_path: Path) -> None:
    """Standard error has a bar per file with the bytes that are there and those of the whole; the result a line."""
    ended = pull(site, tmp_path, "deepfilternet3", terminal=True)
    assert ended.code == 0, ended.err
    assert ended.out == "deepfilternet3: fetched, verified\n"
    assert ARCHIVE in ended.err
    assert "3.0/3.0 MB" in ended.err
    assert "━" * 40 in ended.err


def test_without_a_terminal_there_is_none(site: Site, tmp_path: Path) -> None:
    """Neither bars nor control codes go into a log file; with --json there is one document and nothing else."""
    ended = pull(site, tmp_path, "deepfilternet3")
    assert (ended.code, ended.out, ended.err) == (0, "deepfilternet3: fetched, verified\n", "")
    told = pull(site, tmp_path, "deepfilternet3", "--json")
    assert (told.code, told.err) == (0, "")
    document = json.loads(told.out)
    assert (document["fetched"], document["state"], document["verified"]) == (False, "present", True)


def test_a_broken_connection_costs_nothing(site: Site, tmp_path: Path) -> None:
    """A server that breaks off and then brings nothing: exit code 4 and how much is kept. The same command then asks
    for the rest alone, and its bar begins where the other ended.
    """
    site.break_after = [_MEGABYTE, 0, 0, 0]
    ended = pull(site, tmp_path, "deepfilternet3")
    assert ended.code == 4
    assert "UNAVAILABLE" in ended.err
    assert f"{_MEGABYTE} bytes are kept, and the same command goes on from there" in " ".join(ended.err.split())
    site.break_after, site.ranges, site.pause_seconds = [], [], 1.0
    again = pull(site, tmp_path, "deepfilternet3", terminal=True)
    assert again.code == 0, again.err
    assert site.ranges == [f"bytes={_MEGABYTE}-"]
    assert "1.0/3.0 MB" in again.err
    assert "3.0/3.0 MB" in again.err
    left = sorted(path.name for path in (tmp_path / "deepfilternet3").iterdir())
    assert left == ["checkpoints", "config.ini", "weights.lock.json"]


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "log"])
def test_other_bytes_than_the_name_promises_are_refused(site: Site, tmp_path: Path, terminal: bool) -> None:
    """A checkpoint whose SHA-256 does not begin with the digits of its published name: exit code 6, the reason, both
    digests, no traceback, and nothing of it is kept.
    """
    site.files["955717e8-8726e21a.th"] = site.files[ARCHIVE]
    ended = pull(site, tmp_path, "htdemucs", terminal=terminal)
    said = " ".join(ended.err.split())
    assert ended.code == 6
    assert "MODEL_WEIGHTS_DIGEST_MISMATCH" in said
    assert re.search(r"the SHA-256 of 955717e8-8726e21a\.th is [0-9a-f]{8}…, not 8726e21a…, which its published", said)
    assert "Traceback" not in said
    assert ended.out == ""
    assert list((tmp_path / "htdemucs").iterdir()) == []
