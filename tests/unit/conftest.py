"""What tests of single units share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outboard.audio.plugins.host import PluginHost
from tests.plugins import zam_folder


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    """The real plugins, for tests that leave them as they were: looking one up costs a process and its own start."""
    made = PluginHost((zam_folder(),))
    yield made
    made.close()
