"""A machine on which `make models` was never run: the packages of the neural engines are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode
from outboard.models.registry import MODELS

_WITHOUT = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {absent} else found(name, *rest)
"""
COMMAND = Path(sys.executable).with_name("outboard")


def test_a_song_is_mastered_by_the_engines_that_need_nothing(tmp_path: Path) -> None:
    """Every process of the mesh starts without torch, the runtimes and the models' packages, and the master is
    delivered; the report names the engines that were used.
    """
    absent = {"torch", "openvino", "onnxruntime", "onnx", "onnxscript", "safetensors"}.union(
        *(model.packages for model in MODELS.values())
    )
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT.format(absent=sorted(absent)))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    demo = synthesise(23, 6.0)
    encode(tmp_path / "song.wav", [demo.song], demo.sample_rate_hertz, FileSpec("wav", "24"))
    ended = subprocess.run(
        [COMMAND, "master", "song.wav", "-o", "out", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OUTBOARD_STORE_DIRECTORY": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "master.wav").stat().st_size > 1_000_000
    report = json.dumps(json.loads((tmp_path / "out" / "report.json").read_text()))
    assert "spectral" in report
