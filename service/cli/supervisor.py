"""Everything on this machine: an embedded Valkey, the workers on a local Ray, and the gateway, as child processes.

A child that dies is started again; on SIGINT or SIGTERM the children are stopped in order and nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sitsearch.service.client import Client
from sitsearch.workers.jobs.processes import die_with_parent
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.settings import Settings

START_TIMEOUT = 300.0
STOP_TIMEOUT = 30.0
RESTART_PAUSE = 1.0
#: Lines of a child's log that are shown when it ends while starting.
LAST_WORDS = 30


if TYPE_CHECKING:
    from sitsearch.workers.jobs.embedded import EmbeddedValkey


class StartError(RuntimeError):
    """The service did not come up; the message says which log to read."""


def free_port(host: str) -> int:
    """A TCP port of `host` that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise StartError when something listens on `host:port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error


@dataclass
class Child:
    """One supervised process and its log."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def alive(self) -> bool:
        """It is running."""
        return self.process is not None and self.process.poll() is None

    def last_words(self) -> str:
        """The end of its log, indented."""
        lines = self.log.read_text(errors="replace").splitlines()
        return textwrap.indent("\n".join(lines[-LAST_WORDS:]), "  ")

    def stop(self) -> None:
        """SIGTERM, and after `STOP_TIMEOUT` SIGKILL to all that it started."""
        if self.process is None:
            return
        if self.alive:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def _redis(config: Settings) -> Iterator[tuple[str, EmbeddedValkey | None]]:
    """The address of the configured Redis, or of an embedded Valkey, and this one for as long as the context lasts."""
    if config.redis_url is not None:
        yield config.redis_url, None
        return
    from sitsearch.workers.jobs.embedded import EmbeddedValkey

    with EmbeddedValkey(config.data_dir) as valkey:
        yield valkey.url, valkey


def _look_after(valkey: EmbeddedValkey, say: Callable[[str], None], flag: str, room: bool) -> bool:
    """Start the embedded Valkey again if it has ended, and see whether its disk has room.

    Args:
        valkey, say: see `supervise`.
        flag: see `EmbeddedValkey.heed_disk`.
        room: the disk had some.

    Returns:
        Whether it has.
    """
    if valkey.alive:
        has = valkey.heed_disk(flag)
        if has != room:
            full = f"the disk of {valkey.folder} is full: no new jobs are taken until there is room"
            say("there is room on the disk again" if has else full)
        return has
    from sitsearch.workers.jobs.embedded import EmbeddedValkeyError

    say(f"the embedded Valkey ended unexpectedly (see {valkey.folder / 'valkey.log'}); starting it again")
    try:
        valkey.start_again()
    except EmbeddedValkeyError as error:
        say(f"{error}; trying again")
        time.sleep(RESTART_PAUSE)
    return room


def supervise(config: Settings, *, say: Callable[[str], None], stop: threading.Event) -> None:
    """Run the whole service until `stop` is set.

    Args:
        config: the settings; port 0 takes a free one.
        say: shown each line that a person should read.
        stop: set it to shut down.

    Raises:
        StartError: the port is taken, or the workers were not ready in time.
    """
    port = config.port or free_port(config.host)
    check_port(config.host, port)
    config = config.model_copy(update={"port": port, "data_dir": config.data_dir.resolve()})
    logs = config.data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with _redis(config) as (redis_url, valkey), contextlib.ExitStack() as cleanup:
        env = os.environ | {
            "SITSEARCH_REDIS_URL": redis_url,
            "SITSEARCH_HOST": config.host,
            "SITSEARCH_PORT": str(port),
            "SITSEARCH_DATA_DIR": str(config.data_dir),
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # A token of this run's own: without one, Ray would write one into the user's home.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        children = []
        for name, module in (("workers", "sitsearch.workers.serving.app"), ("gateway", "sitsearch.service.gateway")):
            child = Child(name, [sys.executable, "-m", module], env, logs / f"{name}.log")
            child.start()
            cleanup.callback(child.stop)
            children.append(child)
        url = f"http://{config.host}:{port}"
        say(f"starting on {url}; data and logs in {config.data_dir}")
        _await_ready(url, children, stop)
        if not stop.is_set():
            say(f"ready. The studio: {url}/  the interface: {url}/docs  Ctrl-C stops everything")
        room, flag = True, Keys(config.key_prefix).tight
        while not stop.wait(0.5):
            if valkey is not None:
                room = _look_after(valkey, say, flag, room)
            for child in children:
                if not child.alive:
                    say(f"{child.name} ended unexpectedly (see {child.log}); starting it again")
                    time.sleep(RESTART_PAUSE)
                    child.start()
        say("stopping")
    say("stopped")


def _await_ready(url: str, children: list[Child], stop: threading.Event) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    with Client(url, timeout=2) as client:
        while not stop.wait(0.2) and not client.ready():
            for child in children:
                if not child.alive:
                    raise StartError(
                        f"{child.name} ended while starting; its log, {child.log}, ends:\n{child.last_words()}"
                    )
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {START_TIMEOUT:.0f} s; the logs are in {children[0].log.parent}")
