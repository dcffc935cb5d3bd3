"""Starts and stops a real Triton server on this machine, for local use and for tests.

    python -m outboard.models.triton_server REPOSITORY... [--model NAME]... [--grpc-port PORT] [--configuration NAME]

`make triton` installs the server; in a cluster it runs in an image of its own and nothing of this is used. The Python
backend runs the models in this very environment: the stub finds it through PATH and LD_LIBRARY_PATH.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_config_var
from types import TracebackType

from outboard.errors import FailedPrecondition, Unavailable
from outboard.models.triton_guard import KILL_SIGNAL

INSTALLATION = Path(__file__).resolve().parents[2] / ".triton"
"""Where `make triton` puts the server."""
_HOST = "127.0.0.1"
_POLL_SECONDS = 0.05
# Another program may take a port between the moment when it was found free and the server's start.
_STARTS = 3
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    grpc: int
    http: int
    metrics: int


class TritonServer:
    """One server process with its models' processes; a context manager that starts and stops it.

    Args:
        repository: a folder in Triton's layout, or several whose models have different names.
        log: a file for the server's output; written anew at each start.
        models: loaded at the start; others are loaded when a client asks.
        configuration: ``NAME`` of ``configs/NAME.pbtxt`` that takes the place of ``config.pbtxt`` where a model has it.
        environment: variables for the models beyond this process's own (``OUTBOARD_MODELS``).
        grpc_port: 0 for any free one.
        start_seconds: time until all models are loaded.
        exit_seconds: time for work in progress when it stops.
        installation: made by `make triton`.
    """

    def __init__(
        self,
        repository: Path | Sequence[Path],
        log: Path,
        *,
        models: Sequence[str] = (),
        configuration: str = "cpu",
        environment: Mapping[str, str] | None = None,
        grpc_port: int = 0,
        start_seconds: float = 120.0,
        exit_seconds: int = 30,
        installation: Path = INSTALLATION,
    ) -> None:
        self._repositories = (repository,) if isinstance(repository, Path) else tuple(repository)
        self._log = log
        self._models = tuple(models)
        self._configuration = configuration
        self._environment = dict(environment or {})
        self._grpc_port = grpc_port
        self._start_seconds = start_seconds
        self._exit_seconds = exit_seconds
        self._home = installation / "pytriton" / "tritonserver"
        self._ports = Ports(0, 0, 0)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port`` of gRPC."""
        return f"{_HOST}:{self._ports.grpc}"

    @property
    def metrics_address(self) -> str:
        """``host:port`` of the Prometheus metrics."""
        return f"{_HOST}:{self._ports.metrics}"

    def start(self) -> None:
        """Starts the server and returns when it is ready. After `stop`, starts it again where it listened.

        Raises:
            FailedPrecondition: no server is installed.
            Unavailable: MODEL_SERVER_UNAVAILABLE, with the end of its log: it ended, or is not ready in time.
        """
        if not (self._home / "backends" / "python" / "triton_python_backend_stub").is_file():
            raise FailedPrecondition(
                "the Triton server is not installed here: `make triton` does that", reason="ENGINE_UNAVAILABLE"
            )
        for start in range(1, _STARTS + 1):
            self._ports = _free_ports(self._grpc_port)
            self._launch()
            if self._ready():
                self._grpc_port = self._ports.grpc
                return
            self.stop()
            if start == _STARTS or "already in use" not in self.log_text():
                raise Unavailable(
                    f"the Triton server did not start:\n{self._last_words()}", reason="MODEL_SERVER_UNAVAILABLE"
                )

    def stop(self) -> None:
        """Lets work in progress finish, then ends the server and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(self._exit_seconds + _KILL_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(KILL_SIGNAL)
            self.stop()

    @property
    def ended(self) -> bool:
        """Whether it is not, or no longer, running."""
        return self._process is None or self._process.poll() is not None

    def log_text(self) -> str:
        """All that the server has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        prefix = f"outboard-triton-{os.getpid()}-{secrets.token_hex(4)}-"
        guard = Path(__file__).with_name("triton_guard.py")
        grace_seconds = self._exit_seconds + _KILL_SECONDS / 2
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(guard), str(grace_seconds), prefix, *self._command(prefix)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._variables(),
                process_group=0,  # Ctrl-C is for the program in front, which then stops the server in order
            )

    def _command(self, prefix: str) -> list[str]:
        ports = self._ports
        return [
            str(self._home / "bin" / "tritonserver"),
            *(f"--model-repository={repository.resolve()}" for repository in self._repositories),
            f"--backend-directory={self._home / 'backends'}",
            f"--cache-directory={self._home / 'caches'}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            f"--model-config-name={self._configuration}",
            "--disable-auto-complete-config",
            "--rate-limit=execution_count",
            *(f"--{kind}-address={_HOST}" for kind in ("http", "grpc", "metrics")),
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={self._exit_seconds}",
            # Two servers of one machine would take each other's shared memory.
            f"--backend-config=python,shm-region-prefix-name={prefix}",
        ]

    def _variables(self) -> dict[str, str]:
        """The environment in which the backend's stub finds this interpreter and its packages."""
        root = str(Path(__file__).resolve().parents[2])
        paths = {
            "PATH": str(Path(sys.executable).parent),
            "LD_LIBRARY_PATH": get_config_var("LIBDIR"),
            "PYTHONPATH": root,
        }
        found = {name: os.pathsep.join(filter(None, (first, os.environ.get(name)))) for name, first in paths.items()}
        # Compiled files beside a model.py would change its folder: Triton would take that for a new model.
        return {**os.environ, **found, "PYTHONDONTWRITEBYTECODE": "1", **self._environment}

    def _ready(self) -> bool:
        deadline = time.monotonic() + self._start_seconds
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            if _answers_ready(self._ports.http):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _last_words(self) -> str:
        """What went wrong, as far as the log tells: its errors, or else its end."""
        lines = self.log_text().strip().splitlines()
        errors = [line for line in lines if line.startswith(("E", "error:"))]
        return "\n".join((errors or lines)[-10:])


def _answers_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=1.0)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_ports(grpc_port: int) -> Ports:
    """Three different free ports, the first the given one unless that is 0."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind((_HOST, 0))
        grpc, http_port, metrics = (each.getsockname()[1] for each in sockets)
    return Ports(grpc_port or grpc, http_port, metrics)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m outboard.models.triton_server", description=__doc__)
    parser.add_argument("repository", type=Path, nargs="+", help="folder of models in Triton's layout")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="load at the start (repeatable)")
    parser.add_argument("--grpc-port", type=int, default=8001, help="default: 8001; 0: any free one")
    parser.add_argument("--configuration", default="cpu", help='"cpu", or "gpu" for config.pbtxt itself (default: cpu)')
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with (
        tempfile.TemporaryDirectory(prefix="outboard-triton-") as folder,
        TritonServer(
            options.repository,
            Path(folder) / "log",
            models=options.model,
            grpc_port=options.grpc_port,
            configuration=options.configuration,
        ) as server,
    ):
        print(f"triton listening on {server.address}, metrics on {server.metrics_address}", flush=True)
        print(f"log: {folder}/log", flush=True)
        while not stopping.wait(1.0):
            if server.ended:
                sys.stderr.write(f"the server ended:\n{server.log_text()[-4000:]}\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
