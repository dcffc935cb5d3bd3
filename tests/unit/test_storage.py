"""A folder as object store: whole objects or none, the first content wins, nothing outside of it, no disk filled."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard import storage
from outboard.errors import FailedPrecondition, InvalidInput, NotFound, ResourceExhausted, Unavailable
from outboard.storage import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_object_comes_back_whole_and_in_ranges(store: FolderStore) -> None:
    """What was stored is read back, as a whole, from any offset and of any length, in pieces of CHUNK_BYTES."""
    data = os.urandom(3 * storage.CHUNK_BYTES + 17)
    assert storage.put(store, "t/a/b", data)
    assert storage.get(store, "t/a/b") == data
    assert b"".join(store.read("t/a/b", 1000, 70000)) == data[1000:71000]
    assert b"".join(store.read("t/a/b", len(data))) == b""
    assert [len(piece) for piece in store.read("t/a/b")] == [storage.CHUNK_BYTES] * 3 + [17]


def test_first_stored_content_wins(store: FolderStore) -> None:
    """A key is written once: later content is discarded and its writer told so."""
    assert storage.put(store, "t/key", b"first")
    assert not storage.put(store, "t/key", b"second")
    assert storage.get(store, "t/key") == b"first"


def test_racing_writers_have_one_winner(store: FolderStore) -> None:
    """Of 16 writers of one key exactly one stores, the object is wholly its own, and no partial file is left."""
    barrier, stored = threading.Barrier(16), []

    def write(number: int) -> None:
        with store.writer("t/deep/er/key") as writer:
            for _ in range(8):
                writer.write(bytes([number]) * 50_000)
            barrier.wait()
        stored.append((number, writer.stored))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in stored if won]
    assert len(winners) == 1, f"{len(winners)} of 16 writers were told that they stored"
    assert storage.get(store, "t/deep/er/key") == bytes([winners[0]]) * 400_000
    assert not _files(Path(store._partial))


def test_failed_writer_leaves_nothing(store: FolderStore, tmp_path: Path) -> None:
    """An exception while writing leaves neither the object nor a partial file."""

    def half() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        storage.put(store, "t/key", half())
    assert store.stat("t/key") is None
    assert not _files(tmp_path)


def test_killed_writer_is_swept(tmp_path: Path) -> None:
    """What a writer that was killed had written is removed when the store is opened again; a living writer's is not."""
    script = (
        "import sys, time; from pathlib import Path; from outboard.storage import FolderStore;"
        "w = FolderStore(Path(sys.argv[1])).writer('t/key'); w.write(b'x' * 1000);"
        "print('up', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "store")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"up\n"
        FolderStore(tmp_path / "store")
        assert len(_files(tmp_path)) == 1, "the partial file of a living writer was swept"
        child.send_signal(signal.SIGKILL)
        child.wait()
    store = FolderStore(tmp_path / "store")
    assert not _files(tmp_path)
    assert store.stat("t/key") is None


def test_full_disk_is_said_and_leaves_nothing(store: FolderStore, tmp_path: Path) -> None:
    """A file-size limit (EFBIG, like ENOSPC) ends as STORAGE_FULL without a partial file; the store goes on working."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(ResourceExhausted) as caught:
            storage.put(store, "t/key", b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.reason == "STORAGE_FULL"
    assert not _files(tmp_path)
    assert storage.put(store, "t/key", b"x" * 200_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB; skipped where it cannot be mounted."""
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "outboard-test", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip("mounting a small disk needs privileges that this process does not have")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_really_full_disk(small_disk: Path) -> None:
    """On a disk without room the writer gets STORAGE_FULL, nothing partial stays, and eviction makes room again."""
    store = FolderStore(small_disk / "store")
    storage.put(store, "t/old", b"x" * 600_000)
    with pytest.raises(ResourceExhausted) as caught:
        storage.put(store, "t/new", b"y" * 600_000)
    assert caught.value.reason == "STORAGE_FULL"
    assert [info.key for info in store.list("")] == ["t/old"]
    assert not _files(small_disk / "store" / "partial")
    assert store.evict(max_bytes=0) == ["t/old"]
    assert storage.put(store, "t/new", b"y" * 600_000)


def test_store_that_does_not_answer(tmp_path: Path) -> None:
    """A store whose folder is gone answers STORAGE_UNAVAILABLE for writes, NOT_FOUND for reads, and tells no path."""
    store = FolderStore(tmp_path / "store")
    os.rename(tmp_path / "store", tmp_path / "away")
    with pytest.raises(Unavailable) as caught:
        storage.put(store, "t/key", b"data")
    assert caught.value.reason == "STORAGE_UNAVAILABLE"
    assert str(tmp_path) not in caught.value.message
    with pytest.raises(NotFound):
        store.read("t/key")


def test_file_where_a_folder_should_be(tmp_path: Path) -> None:
    """A key below another key's object is an answer, not a crash: a folder store cannot hold both."""
    store = FolderStore(tmp_path / "store")
    storage.put(store, "t/key", b"data")
    with pytest.raises(Unavailable):
        storage.put(store, "t/key/below", b"data")
    assert store.stat("t/key/below") is None
    assert not _files(Path(store._partial))


@given(st.text(max_size=60))
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    """Whatever the key, it is refused or it names a path below the store made of plain parts."""
    try:
        checked = storage.check_key(key)
    except InvalidInput:
        return
    parts = checked.split("/")
    assert len(parts) >= 2
    assert all(part and not part.startswith(".") and "\0" not in part and "\\" not in part for part in parts)


@pytest.mark.parametrize(
    "key",
    ["", "t", "/t/a", "t//a", "t/", "../a", "t/../a", "t/./a", "t/.hidden", "t/a\0", "t/a\n", "t/ä", "t/a b",
     "t/" + "x" * 201, "/".join(["t"] * 500), "t/..\\a", "t/~", "t/*"],
)  # fmt: skip
def test_malformed_keys_are_refused(store: FolderStore, key: str) -> None:
    """Every operation refuses a malformed key with NAME_INVALID."""
    for operation in (store.writer, store.read, store.stat, store.delete):
        with pytest.raises(InvalidInput) as caught:
            operation(key)
        assert caught.value.reason == "NAME_INVALID"


def test_listing_stays_below_its_prefix(store: FolderStore) -> None:
    """A listing holds the objects below a whole-part prefix, in order, and none of a neighbour that begins alike."""
    for key in ("t/a/1", "t/a/2", "t/ab/3", "u/a/4"):
        storage.put(store, key, key.encode())
    assert [info.key for info in store.list("t/a")] == ["t/a/1", "t/a/2"]
    assert [info.key for info in store.list("")] == ["t/a/1", "t/a/2", "t/ab/3", "u/a/4"]
    assert list(store.list("v")) == []


def test_deletion_leaves_no_empty_folders(store: FolderStore) -> None:
    """Deleting the last object below a prefix removes its folders; deleting nothing says so."""
    storage.put(store, "t/a/b/c", b"x")
    assert store.delete("t/a/b/c")
    assert not store.delete("t/a/b/c")
    assert list(Path(store._objects).iterdir()) == []


def test_eviction_takes_the_least_recently_used_first(store: FolderStore) -> None:
    """Over the cap, what was used longest ago goes first; reading an object counts as use; pins and protection hold."""
    now = time.time()
    for index, key in enumerate(("t/a/x", "t/b/x", "t/c/x", "t/d/x")):
        storage.put(store, key, b"x" * 100)
        os.utime(store._objects / key, (now - 100 + index, now - 200))
    list(store.read("t/a/x"))
    with store.pinned(["t/b/x"]):
        assert store.evict(max_bytes=250, protected={"t/c"}) == ["t/d/x", "t/a/x"]
    assert [info.key for info in store.list("")] == ["t/b/x", "t/c/x"]
    assert store.evict(max_bytes=150) == ["t/b/x"]


def test_eviction_by_time(store: FolderStore) -> None:
    """What was not used for the time-to-live goes, whatever its size."""
    storage.put(store, "t/old", b"x")
    storage.put(store, "t/new", b"x")
    then = time.time() - 1000
    os.utime(store._objects / "t/old", (then, then))
    assert store.evict(idle_seconds=500) == ["t/old"]


def test_eviction_of_what_goes_last(store: FolderStore) -> None:
    """What is to go last outlives its time-to-live, and goes for its size only after everything else."""
    then = time.time() - 1000
    for index, key in enumerate(("t/a/x", "t/b/x", "t/c/x")):
        storage.put(store, key, b"x" * 100)
        os.utime(store._objects / key, (then + index, then + index))
    assert store.evict(idle_seconds=500, last={"t/a", "t/b"}) == ["t/c/x"]
    storage.put(store, "t/d/x", b"x" * 100)
    assert store.evict(max_bytes=100, last={"t/a", "t/b"}) == ["t/d/x", "t/a/x"]


def test_reader_outlives_deletion(store: FolderStore) -> None:
    """An object that is being read stays readable to its end when it is deleted meanwhile."""
    data = os.urandom(2 * storage.CHUNK_BYTES)
    storage.put(store, "t/key", data)
    pieces = store.read("t/key")
    first = next(pieces)
    store.delete("t/key")
    assert first + b"".join(pieces) == data


def test_folder_has_no_urls(store: FolderStore) -> None:
    """Signed URLs are refused with STORAGE_UNSUPPORTED, which names the calls to use instead."""
    for make in (store.download_url, store.upload_url):
        with pytest.raises(FailedPrecondition) as caught:
            make("t/key", 60.0)
        assert caught.value.reason == "STORAGE_UNSUPPORTED"
