"""A Valkey in memory, for one process that simulates."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from sitsearch.workers.jobs.embedded import _binary
from sitsearch.workers.jobs.processes import die_with_parent


@contextmanager
def valkey() -> Iterator[Redis]:
    """A client of a server that keeps nothing on disk."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "valkey.sock"
        command = [str(_binary()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent) as server:
            try:
                client = Redis(unix_socket_path=str(socket), retry=None)
                for _ in range(200):
                    with suppress(RedisConnectionError, OSError):
                        client.ping()
                        break
                    time.sleep(0.05)
                yield client
            finally:
                server.terminate()
