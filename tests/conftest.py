"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real songs, stems and signals (``OUTBOARD_TEST_DATA``); the test is skipped where it is absent."""
    folder = Path(os.environ.get("OUTBOARD_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no test data: set OUTBOARD_TEST_DATA to the folder that holds songs/, stems/, loudness/ ...")
    return folder
