"""Named results: the name holds all that matters, the first whole attempt wins, and a cancelled one leaves nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from outboard import storage
from outboard.storage import FolderStore, FolderWriter
from outboard.v1 import audio_pb2, mixer_service_pb2
from services.orchestrator.results import Draft, find, plain, remove, result_prefix

ENGINE = audio_pb2.EngineInfo(name="spectral", version=1, backend="numpy", device="cpu")


class SlowStore(FolderStore):
    """Takes its time to open a writer."""

    def writer(self, key: str) -> FolderWriter:
        time.sleep(0.2)
        return super().writer(key)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_name_depends_on_everything_that_matters() -> None:
    """Stage, tenant, engine, its version, weights, precision and backend, settings and inputs each change the name."""
    base = result_prefix("t", "mix", [ENGINE], {"a": 1}, ["d1"])
    others = [
        result_prefix("u", "mix", [ENGINE], {"a": 1}, ["d1"]),
        result_prefix("t", "master", [ENGINE], {"a": 1}, ["d1"]),
        result_prefix("t", "mix", [ENGINE], {"a": 2}, ["d1"]),
        result_prefix("t", "mix", [ENGINE], {"a": 1}, ["d2"]),
        result_prefix("t", "mix", [ENGINE], {"a": 1}, ["d1", "d1"]),
        result_prefix("t", "mix", [ENGINE, ENGINE], {"a": 1}, ["d1"]),
    ]
    for name, value in (("name", "x"), ("version", 2), ("weights_digest", "x"), ("precision", "x"), ("backend", "x")):
        engine = audio_pb2.EngineInfo()
        engine.CopyFrom(ENGINE)
        setattr(engine, name, value)
        others.append(result_prefix("t", "mix", [engine], {"a": 1}, ["d1"]))
    assert len({base, *others}) == len(others) + 1
    assert base.startswith("t/results/")


def test_name_does_not_depend_on_device_or_order_of_maps() -> None:
    """The machine's device and the order in which a map was filled do not change the name."""
    elsewhere = audio_pb2.EngineInfo()
    elsewhere.CopyFrom(ENGINE)
    elsewhere.device = "cuda:0"
    forth = mixer_service_pb2.Preset(values={"a": 1.0, "b": 2.0})
    back = mixer_service_pb2.Preset(values={"b": 2.0, "a": 1.0})
    assert result_prefix("t", "mix", [ENGINE], plain(forth), []) == result_prefix(
        "t", "mix", [elsewhere], plain(back), []
    )


async def _store(draft: Draft, content: bytes) -> None:
    await (await draft.open("stems/vocals.wav", "audio/wav")).write(content)


async def test_first_whole_attempt_wins(tmp_path: Path) -> None:
    """Of two attempts the first to finish is the result for both; the other's objects are removed."""
    store = FolderStore(tmp_path)
    async with Draft(store, "t/results/x") as first, Draft(store, "t/results/x") as second:
        await _store(first, b"first")
        await _store(second, b"second")
        won = await first.finish({"n": 1})
        lost = await second.finish({"n": 2})
    assert lost.facts == won.facts == {"n": 1}
    assert storage.get(store, lost.objects["stems/vocals.wav"].key) == b"first"
    assert len(list(store.list("t/results/x"))) == 2
    assert find(store, "t/results/x") == won


async def test_failed_attempt_leaves_nothing(tmp_path: Path) -> None:
    """An attempt that raises removes what it stored and what it was storing."""
    store = FolderStore(tmp_path)

    async def attempt() -> None:
        async with Draft(store, "t/results/x") as draft:
            await _store(draft, b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await attempt()
    assert not _files(tmp_path)
    assert find(store, "t/results/x") is None


async def test_renamed_attempt_is_found_under_the_other_name_alone(tmp_path: Path) -> None:
    """What is renamed before it is published is found whole under the other name, and the first name stays free."""
    store = FolderStore(tmp_path)
    async with Draft(store, "t/results/x") as draft:
        await _store(draft, b"stood in")
        await draft.rename("t/results/y")
        result = await draft.finish({"n": 1})
    assert find(store, "t/results/y") == result
    assert storage.get(store, result.objects["stems/vocals.wav"].key) == b"stood in"
    assert find(store, "t/results/x") is None
    assert not list(store.list("t/results/x"))


async def test_renamed_attempt_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An attempt that raises after it was renamed leaves neither name anything."""
    store = FolderStore(tmp_path)

    async def attempt() -> None:
        async with Draft(store, "t/results/x") as draft:
            await _store(draft, b"half")
            await draft.rename("t/results/y")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await attempt()
    assert not _files(tmp_path)


async def test_attempt_cancelled_while_it_opens_leaves_nothing(tmp_path: Path) -> None:
    """A cancel that arrives while a thread opens an object loses neither its file nor its descriptor."""
    store = SlowStore(tmp_path)

    async def attempt() -> None:
        async with Draft(store, "t/results/x") as draft:
            await _store(draft, b"half")

    task = asyncio.create_task(attempt())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _files(tmp_path)


async def test_result_that_lost_an_object_is_none(tmp_path: Path) -> None:
    """A result of which eviction took an object is no result any more, and what is left of it is removed."""
    store = FolderStore(tmp_path)
    async with Draft(store, "t/results/x") as draft:
        await _store(draft, b"content")
        result = await draft.finish({})
    store.delete(result.objects["stems/vocals.wav"].key)
    assert find(store, "t/results/x") is None
    assert not _files(tmp_path)
    remove(store, "t/results/x")
