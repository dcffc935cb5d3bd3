"""What tests of jobs and of single stages share."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from outboard.cli import main
from tests.integration.cli_bench import Ended, Outboard
from tests.integration.orchestrator_bench import Bench, bench
from tests.integration.stage_bench import Stage, serving

if TYPE_CHECKING:
    from outboard.client import Client
    from tests.conftest import ServedMesh


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


@pytest.fixture
def unharmed(served_mesh: ServedMesh, mesh_client: Client) -> Iterator[None]:
    """After the test the mesh answers, and nothing partial is left (stages tidy up a moment after they answered)."""
    yield
    next(mesh_client.list_jobs(page_size=1), None)
    deadline = time.monotonic() + 5.0
    while left := [*served_mesh.spool.iterdir(), *(served_mesh.store / "partial").iterdir()]:
        assert time.monotonic() < deadline, f"left behind: {[path.name for path in left]}"
        time.sleep(0.05)


@pytest.fixture
def entered(
    folder: Path, served_mesh: ServedMesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Outboard:
    """Runs the command in this process in the module's `folder`, on the store of the mesh that runs."""

    def run(*arguments: str, code: int = 0) -> Ended:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OUTBOARD_STORE_DIRECTORY", str(served_mesh.store))
        monkeypatch.setattr(sys, "argv", ["outboard", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert caught.value.code == code, f"exit code {caught.value.code}, not {code}: {said.out}{said.err}"
        assert str(served_mesh.store) not in said.out + said.err, "a path of the store was printed"
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def server(served_mesh: ServedMesh) -> tuple[str, str]:
    """The options that name the mesh's address."""
    return "--server", served_mesh.address
