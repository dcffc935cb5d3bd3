"""The whole mesh on one machine: the five services as child processes on Unix sockets, over one folder.

One mesh per store: the first command takes a file lock and serves, later ones join it (two meshes on one store would
recover each other's jobs). The serving command stops the mesh when it ends and nobody else uses it any more; should it
be killed, its children end with it, and the next command on the store resumes the jobs that were not finished.

    with local_mesh(Path("store")) as mesh:
        client = Client(mesh.address)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from outboard.errors import Unavailable
from outboard.local_logs import LOG_BYTES, ServiceLog
from outboard.local_nursery import SERVER_MODULES, STAGE_MODULES, Child, Nursery, Order
from outboard.settings import StoreSettings

STAGES = ("separator", "restorer", "mixer", "master")
ORCHESTRATOR = "orchestrator"

_START_SECONDS = 300.0
_STOP_SECONDS = 10.0
_STAGE_STOP_SECONDS = 0.3
_DRAIN_SECONDS = 2.0
_POLL_SECONDS = 0.02
_WATCH_SECONDS = 0.2
_LONGEST_SOCKET_PATH = 107 - len("/orchestrator.sock")
_RESTARTS = 5
_RESTART_PERIOD_SECONDS = 60.0

_log = logging.getLogger(__name__)
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Mesh:
    """A mesh that answers: where JobService listens, where each stage does, and whether another command serves it."""

    address: str
    stages: Mapping[str, str]
    joined: bool
    log_directory: Path


@contextlib.contextmanager
def local_mesh(
    store: Path | None = None, *, listen: str | None = None, notify: Notify = lambda _: None
) -> Iterator[Mesh]:
    """The mesh of a store, served by this process or joined.

    Args:
        store: folder of the store; the settings' unless given.
        listen: address of JobService (``host:port``) where others are to reach it; unless given, a socket in the store.
        notify: told in a sentence what takes time.

    Raises:
        Unavailable: a service did not start (its log's end is in the message), or `listen` was given and another
            command serves.
    """
    folder = Path(store or StoreSettings().directory).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    run = _run_directory(folder)
    with _open_lock(run / "clients.lock") as clients, _open_lock(run / "mesh.lock") as lock:
        if _serves(lock, clients):
            yield from _serving(folder, run, clients, listen, notify)
        elif listen:
            raise Unavailable("another command serves this store already: stop it, or leave out the address")
        else:
            yield _joined(run, lock, notify)


def _serves(lock: IO[bytes], clients: IO[bytes]) -> bool:
    """Takes the mesh's lock, or else a share in the mesh of the process that holds it."""
    while True:
        if _try_lock(lock, fcntl.LOCK_EX):
            return True
        # A mesh that is stopping holds the clients' lock: wait until it is gone, then perhaps serve.
        if _try_lock(clients, fcntl.LOCK_SH):
            if not _try_lock(lock, fcntl.LOCK_EX):
                return False
            fcntl.flock(clients, fcntl.LOCK_UN)
            return True
        time.sleep(_POLL_SECONDS)


def _joined(run: Path, lock: IO[bytes], notify: Notify) -> Mesh:
    notify("joining the mesh that serves this store")
    deadline = time.monotonic() + _START_SECONDS
    ready = run / "ready"
    while not ready.exists():
        if _try_lock(lock, fcntl.LOCK_EX):
            raise Unavailable("the mesh of this store ended while it was starting: try again")
        if time.monotonic() > deadline:
            raise Unavailable("the mesh of this store does not become ready")
        time.sleep(_POLL_SECONDS)
    return Mesh(ready.read_text().strip(), _stage_addresses(run), True, run / "logs")


def _serving(folder: Path, run: Path, clients: IO[bytes], listen: str | None, notify: Notify) -> Iterator[Mesh]:
    ready = run / "ready"
    ready.unlink(missing_ok=True)
    services = _Services(folder, run, listen)
    try:
        notify("starting the services")
        address = services.start()
        temporary = run / "ready.new"
        temporary.write_text(address)
        temporary.replace(ready)
        yield Mesh(address, _stage_addresses(run), False, services.log_directory)
        if not _try_lock(clients, fcntl.LOCK_EX):
            notify("another command uses this mesh: waiting for its end")
            fcntl.flock(clients, fcntl.LOCK_EX)
    finally:
        ready.unlink(missing_ok=True)
        services.stop()


@dataclass
class _Service:
    """One child: how to start it, and the process that runs now."""

    name: str
    listen: str
    log: ServiceLog
    nursery: Nursery
    process: Child | None = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Starts the process; its output goes to the log, which begins anew."""
        if self.listen.startswith("unix:"):
            Path(self.listen.removeprefix("unix:")).unlink(missing_ok=True)
        self.starts.append(time.monotonic())
        self.log.begin()
        shared = SERVER_MODULES if self.name == ORCHESTRATOR else STAGE_MODULES
        self.process = self.nursery.start(Order(f"services.{self.name}", self.listen, str(self.log.path), shared))

    def address(self) -> str | None:
        """Where it listens, once it has said so (which it does when it is warm)."""
        for line in self.log.text().splitlines():
            head, found, address = line.partition(" listening on ")
            if found and head == self.name:
                return address.strip()
        return None

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.wait(0.0)

    def wait(self, deadline: float) -> None:
        """Waits until the process has ended; past the deadline it is killed."""
        if not self.process:
            return
        if not self.process.wait(deadline - time.monotonic()):
            _log.info("a service did not stop in time", extra={"service_name": self.name})
            self.process.signal(signal.SIGKILL)
            self.process.wait(_STOP_SECONDS)


class _Services:
    """The five children: started together, watched, restarted when one crashes, stopped."""

    def __init__(self, folder: Path, run: Path, listen: str | None) -> None:
        self.log_directory = run / "logs"
        self.log_directory.mkdir(exist_ok=True)
        self._nursery = Nursery(self.log_directory / "nursery.log", _environment(folder, run))
        # The orchestrator first: it has most left to load.
        addresses = {ORCHESTRATOR: listen or f"unix:{run / 'orchestrator.sock'}", **_stage_addresses(run)}
        self._services = [
            _Service(name, address, ServiceLog(self.log_directory / f"{name}.log"), self._nursery)
            for name, address in addresses.items()
        ]
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="mesh-watch", daemon=True)

    def start(self) -> str:
        """Starts all, and returns where JobService listens as soon as it does.

        The stages may still be warming up: the orchestrator waits for each when it first needs it, and a song that is
        done already needs no more of them than what engines they have.
        """
        for service in self._services:
            service.start()
        orchestrator = self._services[0]
        deadline = time.monotonic() + _START_SECONDS
        while (address := orchestrator.address()) is None:
            for service in self._services:
                if service.ended:
                    raise Unavailable(f"the {service.name} did not start:\n{service.log.last_words()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the orchestrator is not ready after {_START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        self._watcher.start()
        return address

    def stop(self) -> None:
        """Stops all: politely, then for good. No process is left."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        # The orchestrator first: while it drains it still talks to the stages.
        started = [service for service in self._services if service.process]
        for service in started:
            if service.process:
                service.process.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for service in started:
            service.wait(deadline)
            # A stage has nothing to finish once the orchestrator is gone; one that is warming up would not listen.
            deadline = min(deadline, time.monotonic() + _STAGE_STOP_SECONDS)
        self._nursery.close()

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            for service in self._services:
                if service.ended and not self._stopping.is_set():
                    self._restart(service)
                service.log.bound(LOG_BYTES)

    def _restart(self, service: _Service) -> None:
        now = time.monotonic()
        service.starts = [moment for moment in service.starts if now - moment < _RESTART_PERIOD_SECONDS]
        if len(service.starts) > _RESTARTS:
            return
        _log.error("a service ended and is started again", extra={"service_name": service.name})
        service.log.keep_crashed()
        service.start()


def _environment(folder: Path, run: Path) -> dict[str, str]:
    package_root = str(Path(__file__).resolve().parent.parent)
    search_path = [package_root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    peers = {f"OUTBOARD_PEER_{name.upper()}": address for name, address in _stage_addresses(run).items()}
    return {
        **os.environ,
        **peers,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(search_path)),
        "OUTBOARD_STORE_DIRECTORY": str(folder),
        "OUTBOARD_SERVER_DRAIN_SECONDS": os.environ.get("OUTBOARD_SERVER_DRAIN_SECONDS", str(_DRAIN_SECONDS)),
    }


def _stage_addresses(run: Path) -> dict[str, str]:
    return {name: f"unix:{run / f'{name}.sock'}" for name in STAGES}


def _run_directory(folder: Path) -> Path:
    """Where sockets, locks and logs of a mesh live: in the store, or under a short name where its path is too long."""
    run = folder / "run"
    if len(os.fsencode(run)) > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        run = Path(tempfile.gettempdir()) / f"outboard-{os.getuid()}-{digest}"
    run.mkdir(mode=0o700, exist_ok=True)
    if run.stat().st_uid != os.getuid():
        raise Unavailable("the folder for the mesh's sockets belongs to another user")
    return run


@contextlib.contextmanager
def _open_lock(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab") as file:
        yield file


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
