"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def mesh_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a whole mesh of this machine, on a store of its own."""
    from outboard.client import Client
    from outboard.local import local_mesh

    with local_mesh(tmp_path_factory.mktemp("store")) as mesh, Client(mesh.address) as client:
        yield client
