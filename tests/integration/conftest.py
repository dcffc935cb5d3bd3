"""What tests of jobs and of single stages share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.orchestrator_bench import Bench, bench
from tests.integration.stage_bench import Stage, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def toy_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One orchestrator on toy stages for all tests of a module."""
    async with bench(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def mesh(toy_mesh: Bench) -> Bench:
    """The module's mesh, with no slowness and no errors left over from another test."""
    toy_mesh.behaviour.calm()
    return toy_mesh


@pytest.fixture
async def mixer(tmp_path: Path) -> AsyncIterator[Stage]:
    """The real mixer alone."""
    async with serving("mixer", tmp_path) as stage:
        yield stage


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Stage]:
    """The real master alone."""
    async with serving("master", tmp_path) as stage:
        yield stage
