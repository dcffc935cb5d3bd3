"""What `outboard models list` says is what lies in the folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from outboard.models import registry


def _states(folder: Path) -> dict[str, str]:
    return {row.name: row.state for row in registry.inventory(folder)}


def test_nothing_there_is_absent(tmp_path: Path) -> None:
    """A folder that does not exist has no model, and that is no error."""
    assert set(_states(tmp_path / "none").values()) == {"absent"}


def test_digest_in_the_name_is_checked(tmp_path: Path) -> None:
    """A file whose content has the digest of its name is present; a changed one is damaged."""
    folder = tmp_path / "htdemucs"
    folder.mkdir()
    content = b"weights"
    file = folder / f"955717e8-{hashlib.sha256(content).hexdigest()[:8]}.th"
    file.write_bytes(content)
    assert _states(tmp_path)["htdemucs"] == "present"
    file.write_bytes(b"weightz")
    assert _states(tmp_path)["htdemucs"] == "damaged"


def test_half_of_the_files_is_incomplete(tmp_path: Path) -> None:
    """A bag of four networks with one of them there is not usable, and is not called present."""
    folder = tmp_path / "htdemucs_ft"
    folder.mkdir()
    (folder / f"f7e0c4bc-{hashlib.sha256(b'').hexdigest()[:8]}.th").write_bytes(b"")
    assert _states(tmp_path)["htdemucs_ft"] == "incomplete"
