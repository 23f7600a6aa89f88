"""Heartbeats from a thread: leases that are kept however busy the event loop is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis, Sentinel
from redis.exceptions import RedisError

from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.jobs.store.records import Claim
from sitsearch.workers.jobs.store.scripts import text_of
from sitsearch.workers.jobs.store.sentinels import sentinels_of
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

#: Renewals in the time of a lease, and tries where the store is away.
PER_LEASE, TRIES = 3, 15
#: Leases that are renewed in one round trip.
TOGETHER = 500


class Heartbeat:
    """Renews the leases of the claims that it is given, with a connection of its own.

    Args:
        url: of the store, see `client_of`.
        settings: the deployment's.
        refused: called from the thread with a claim that no longer holds, and why; it is let go.
    """

    def __init__(
        self, url: str, settings: Settings, refused: Callable[[Claim, LeaseLost | JobCanceled], object]
    ) -> None:
        self._keys, self._lease = Keys(settings.key_prefix), settings.lease
        self._redis = _client_of(url, settings.lease)
        self._renew: Any = self._redis.register_script(text_of("renew"))
        self._refused = refused
        self._held: dict[str, Claim] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """It goes on."""
        return self._thread.is_alive()

    def hold(self, claim: Claim) -> None:
        """Keep a claim's lease from now on."""
        self._held[claim.token] = claim

    def let_go(self, claim: Claim) -> None:
        """Keep it no more."""
        self._held.pop(claim.token, None)

    def stop(self) -> None:
        """Keep none."""
        self._stop.set()

    def _beat(self) -> None:
        pause = self._lease / PER_LEASE
        while not self._stop.wait(pause):
            try:
                self._renew_all()
                pause = self._lease / PER_LEASE
            except (RedisError, OSError) as error:
                log.warning("leases are not renewed, the store is away: %s", error)
                pause = self._lease / TRIES
        self._redis.close()

    def _renew_all(self) -> None:
        held = list(self._held.values())
        lease = max(1, round(self._lease * 1000))
        for first in range(0, len(held), TOGETHER):
            part = held[first : first + TOGETHER]
            with self._redis.pipeline(transaction=False) as pipe:
                for claim in part:
                    keys = [self._keys.job(claim.job.id), self._keys.leases]
                    self._renew(keys=keys, args=[claim.job.id, claim.token, lease], client=pipe)
                replies = pipe.execute()
            for claim, reply in zip(part, replies, strict=True):
                if (refusal := claim.refusal(reply[0])) is not None and claim.token in self._held:
                    self.let_go(claim)
                    self._refused(claim, refusal)


def _client_of(url: str, lease: float) -> Redis:
    """A client that gives a silent server up in good time to try again within a lease."""
    patience: dict[str, Any] = {"socket_timeout": max(0.2, lease / PER_LEASE), "socket_connect_timeout": 2.0}
    if (watched := sentinels_of(url)) is None:
        return Redis.from_url(url, retry=None, **patience)
    sentinels: Any = Sentinel(watched.hosts, sentinel_kwargs=watched.login | patience, **patience)
    found: Redis = sentinels.master_for(watched.name, db=watched.db, **watched.login)
    return found
