"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from outboard.client import Client

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real songs, stems and signals (``OUTBOARD_TEST_DATA``); the test is skipped where it is absent."""
    folder = Path(os.environ.get("OUTBOARD_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no test data: set OUTBOARD_TEST_DATA to the folder that holds songs/, stems/, loudness/ ...")
    return folder


@dataclass(frozen=True)
class ServedMesh:
    """A whole mesh that runs: where JobService listens (``host:port``), its store, and the folder of its spools."""

    address: str
    store: Path
    spool: Path


@pytest.fixture(scope="session")
def served_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedMesh]:
    """A mesh of this machine on a store of its own, without model weights whatever the machine has; commands on the
    same store join it.
    """
    from outboard.audio.spool import default_directory
    from outboard.local import local_mesh

    store = tmp_path_factory.mktemp("store")
    with tempfile.TemporaryDirectory(dir=default_directory()) as spool, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTBOARD_SPOOL_DIRECTORY", spool)
        patch.setenv("OUTBOARD_MODELS", str(tmp_path_factory.mktemp("no-models")))
        with local_mesh(store, listen="127.0.0.1:0") as mesh:
            patch.undo()
            yield ServedMesh(mesh.address, store, Path(spool))


@pytest.fixture(scope="session")
def mesh_client(served_mesh: ServedMesh) -> Iterator[Client]:
    """A client of that mesh."""
    from outboard.client import Client

    with Client(served_mesh.address) as client:
        yield client
