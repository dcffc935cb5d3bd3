"""The contract: generated stubs are current, and error reasons are the same in the contract and in the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import google.api

from outboard.v1 import error_reason_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_generated_stubs_are_current(tmp_path: Path) -> None:
    """Stubs and type stubs generated now from protos/ equal the committed ones byte by byte, and there are no others:
    nobody forgot `make protos`."""
    protos = sorted((ROOT / "protos/outboard/v1").glob("*.proto"))
    assert protos
    google_protos = Path(next(iter(google.api.__path__))).parents[1]
    command = [
        sys.executable,
        *("-m", "grpc_tools.protoc", "-I", str(ROOT / "protos"), "-I", str(google_protos)),
        *(f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"),
        *(option for name in ("mypy", "mypy_grpc") for option in _type_stubs(name, tmp_path)),
        *map(str, protos),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    generated = {file.name: file.read_text() for file in (tmp_path / "outboard/v1").iterdir()}
    committed = {file.name: file.read_text() for file in (ROOT / "outboard/v1").glob("*_pb2*")}
    assert len(generated) == 4 * len(protos)
    assert generated.keys() == committed.keys(), "run `make protos`: files are missing, or nothing makes them any more"
    stale = [name for name in generated if generated[name] != committed[name]]
    assert not stale, f"run `make protos`: stale are {stale}"


def _type_stubs(name: str, folder: Path) -> tuple[str, str]:
    """What makes protoc write .pyi files, as the Makefile does."""
    plugin = Path(sys.executable).with_name(f"protoc-gen-{name}")
    return f"--plugin=protoc-gen-{name}={plugin}", f"--{name}_out=quiet:{folder}"


def test_reasons_in_the_code_are_in_the_contract() -> None:
    """Every reason that the code raises is a name of ErrorReason: a client can rely on the list in the contract."""
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    pattern = re.compile(r"reason=\"([A-Z_]+)\"|default_reason = \"([A-Z_]+)\"")
    used = {
        group
        for folder in ("outboard", "services")
        for file in (ROOT / folder).rglob("*.py")
        for match in pattern.finditer(file.read_text())
        for group in match.groups()
        if group
    }
    assert used
    assert used <= names, f"not in error_reason.proto: {sorted(used - names)}"
