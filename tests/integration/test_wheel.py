"""The wheel holds the product: library, services, presets and stubs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import importlib
for name in ("outboard.cli", "outboard.local", "outboard.v1.job_service_pb2_grpc"):
    importlib.import_module(name)
for stage in ("separator", "restorer", "mixer", "master", "orchestrator"):
    importlib.import_module(f"services.{stage}.servicer")
from outboard import presets
assert presets.load("balanced").values
import outboard, sys
print(outboard.__file__)
assert "torch" not in sys.modules, "the weights-free path must not import torch"
"""


def test_wheel_installs_and_imports(tmp_path: Path) -> None:
    """Unpacked outside the checkout, the wheel imports every service, finds its presets, and does not load torch."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    probe = subprocess.run([sys.executable, "-c", PROBE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert probe.returncode == 0, probe.stderr
    assert probe.stdout.strip().startswith(str(site))
