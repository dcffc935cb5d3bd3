"""`make breaking`: what breaks clients of the last tag's contract is refused, what they do not notice is not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("build/buf", "build/googleapis")
UPLOAD = '  // Upload, "uploads/{upload}".\n  string upload = 1;'
Breaking = Callable[[], subprocess.CompletedProcess[str]]


@pytest.fixture
def breaking(tmp_path: Path) -> Breaking:
    """The contract as a repository of its own in `tmp_path`, and what runs `make breaking` there."""
    for name in BUILT:
        if not (ROOT / name).is_dir():
            pytest.skip(f"{name} is not there: `make lint` fetches it")
        (tmp_path / "build").mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    for name in ("Makefile", "buf.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", "protos", "buf.yaml")
    _git(tmp_path, "commit", "--quiet", "--message", "contract")
    built = [option for name in BUILT for option in ("--assume-old", name)]
    command = ["make", *built, "--assume-old", ".venv/ready", "breaking"]
    return lambda: subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


def _git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def _edit(folder: Path, old: str, new: str) -> None:
    proto = folder / "protos/outboard/v1/job_service.proto"
    text = proto.read_text()
    assert old in text
    proto.write_text(text.replace(old, new))


def test_nothing_is_compared_before_the_first_tag(breaking: Breaking) -> None:
    """Without a tag the check passes, and says that it did not compare."""
    done = breaking()
    assert done.returncode == 0, done.stderr
    assert "no tag" in done.stdout


def test_new_field_is_no_break(breaking: Breaking, tmp_path: Path) -> None:
    """Fields at free numbers may join."""
    _git(tmp_path, "tag", "v1.0.0")
    _edit(tmp_path, UPLOAD, f"{UPLOAD}\n  // More.\n  string more = 999;")
    done = breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "v1.0.0" in done.stdout


def test_changed_type_is_refused(breaking: Breaking, tmp_path: Path) -> None:
    """A field that changes its type since the tag fails the check, which names it."""
    _git(tmp_path, "tag", "v1.0.0")
    _edit(tmp_path, UPLOAD, UPLOAD.replace("string", "int64"))
    done = breaking()
    assert done.returncode != 0
    assert "job_service.proto" in done.stdout, done.stdout + done.stderr
