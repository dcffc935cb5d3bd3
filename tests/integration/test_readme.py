"""README.md tells the truth: its program runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

README = Path(__file__).resolve().parents[2] / "README.md"


def test_python_example(
    served_mesh: ServedMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of the README, on another port and with a song where it expects one, masters and brings the files."""
    program = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    assert '"127.0.0.1:8460"' in program
    demo = synthesise(23, 3.0)
    encode(tmp_path / "song.mp3", [demo.song], demo.sample_rate_hertz, FileSpec("mp3"))
    monkeypatch.chdir(tmp_path)
    exec(compile(program.replace("127.0.0.1:8460", served_mesh.address), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "STATE_SUCCEEDED ['100%', '100%', '100%', '100%']"
    assert re.fullmatch(r"-\d+\.\d LUFS, -\d+\.\d\d dBTP", lines[-1]), lines[-1]
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"master.wav", "mix.wav", "preview_ab.mp3", "report.json", "stems/vocals.wav"} <= files
