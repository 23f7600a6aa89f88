"""A loopback HTTP server of files, with the manners and the faults of real ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Serves `files`; the other fields say how.

    Attributes:
        files: path to content; `/old/PATH` is redirected to `/PATH`.
        etags: path to ETag; without one the server offers none.
        ranges: it honours Range (and If-Range).
        drops: for each of the next answers with content, after how many bytes the connection is closed.
        statuses: the next answers are these statuses, with `headers`.
        headers: sent with each answer.
        requests: what was asked for: path, Range, If-Range.
    """

    files: dict[str, bytes]
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(files: dict[str, bytes], **manners: Any) -> Iterator[FileServer]:
    """A running `FileServer` on a free port of 127.0.0.1."""
    state = FileServer(files, **manners)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/")
            state.requests.append((path, self.headers["Range"], self.headers["If-Range"]))
            if state.statuses:
                self._answer(state.statuses.pop(0))
            elif path.startswith("old/"):
                self._answer(302, {"Location": f"/{path.removeprefix('old/')}"})
            elif path not in state.files:
                self._answer(404)
            else:
                self._file(path)

        def _file(self, path: str) -> None:
            content, etag = state.files[path], state.etags.get(path)
            headers = {"ETag": etag} if etag else {}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            same = self.headers["If-Range"] in (None, etag)
            if not (asked and state.ranges and same):
                return self._answer(200, headers, content)
            start = int(asked[1])
            if start >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            return self._answer(206, headers | span, content[start:])

        def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **state.headers, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if content and state.drops:
                content = content[: state.drops.pop(0)]
                self.close_connection = True
            with suppress(ConnectionError):  # the client may have seen enough
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output quiet."""

    with listening(Handler) as port:
        state.url = f"http://127.0.0.1:{port}"
        yield state


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server on a free port of this machine, for as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
