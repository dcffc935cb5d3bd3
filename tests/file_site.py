"""A web server of files for tests of downloads: it understands ranges, and breaks connections on demand."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """A server of files that understands ranges, and what it has been asked."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: list[str | None] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    tags: bool = True
    pause_seconds: float = 0.0
    """Between the head of an answer and its bytes."""


@contextmanager
def serving_files() -> Iterator[Site]:
    """A web server on this machine, as long as the ``with`` lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.files.get(self.path[1:])
            asked = self.headers.get("Range")
            served.ranges.append(asked)
            if content is None:
                self.send_error(404)
                return
            tag = hashlib.md5(content).hexdigest()
            start = 0
            if asked and self.headers.get("If-Range", tag) == tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if served.tags:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            time.sleep(served.pause_seconds)
            until = start + served.break_after.pop(0) if served.break_after else len(content)
            self.wfile.write(content[start:until])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()
