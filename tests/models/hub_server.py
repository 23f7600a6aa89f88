"""A loopback hub: what huggingface_hub asks of huggingface.co when it fetches a file of a model's repository."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.models.file_server import listening


class Asked(NamedTuple):
    """A request: method, path, Range and the token that came with it."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class HubServer:
    """Serves the repository `OWNER/NAME` named `repo`.

    Attributes:
        repo: the only one there is.
        commits: commit to path to content.
        branches: branch or tag to commit.
        large: paths kept as large files: their ETag is their SHA-256, and they come from another host.
        gated: only this token may read the files; None: anyone may.
        drops: for each of the next answers with content, after how many bytes the connection is closed.
        tampered: path to what comes in place of its content.
        requests: what was asked for.
    """

    repo: str
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    gated: str | None = None
    drops: list[int] = field(default_factory=list)
    tampered: dict[str, bytes] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve_hub(repo: str, commits: dict[str, dict[str, bytes]], **manners: Any) -> Iterator[HubServer]:
    """A running `HubServer` on a free port of 127.0.0.1."""
    state = HubServer(repo, commits, **manners)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._resolve()

        def do_GET(self) -> None:
            self._resolve()

        def _resolve(self) -> None:
            token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
            state.requests.append(Asked(self.command, self.path, self.headers["Range"], token))
            if stored := re.fullmatch(r"/stored/(\w+)/(.+)", self.path):
                commit, path = stored[1], stored[2]
                return self._content({}, state.tampered.get(path, state.commits[commit][path]))
            asked = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            if asked is None or asked[1] != state.repo:
                return self._refuse(404, "RepoNotFound")
            if state.gated is not None and token != state.gated:
                return self._refuse(401 if token is None else 403, "GatedRepo")
            commit, path = state.branches.get(unquote(asked[2]), asked[2]), unquote(asked[3])
            if commit not in state.commits:
                return self._refuse(404, "RevisionNotFound")
            if path not in state.commits[commit]:
                return self._refuse(404, "EntryNotFound")
            content = state.commits[commit][path]
            headers = {"X-Repo-Commit": commit}
            if path not in state.large:
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                return self._content(headers | {"ETag": f'"{blob}"'}, state.tampered.get(path, content))
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
            headers["Location"] = f"http://localhost:{state.port}/stored/{commit}/{path}"
            return self._answer(302, headers)

        def _refuse(self, status: int, code: str) -> None:
            self._answer(status, {"X-Error-Code": code})

        def _content(self, headers: dict[str, str], content: bytes) -> None:
            ranged = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            if ranged is None:
                return self._answer(200, headers, content)
            start = int(ranged[1])
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            return self._answer(206, headers | span, content[start:])

        def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if content and state.drops:
                content = content[: state.drops.pop(0)]
                self.close_connection = True
            with suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output quiet."""

    with listening(Handler) as state.port:
        yield state
