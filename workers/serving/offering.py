"""What a deployment offers, as its pools say themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from sitsearch.workers.jobs.offer import ModelOffer, Offer, VerifierOffer
from sitsearch.workers.search.registry import algorithm_offers
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that pools have to come up in before what is there is offered without the others.
COMING_UP = 120.0


class Offering:
    """Asks pools what they can do. One that does not answer, or cannot come up, keeps no other from being offered.

    Args:
        settings: the deployment's.
        samplers: handle of the sampler deployment by model name.
        verifiers: handle of the verifier deployment by verifier name.

    Attributes:
        offer: what is known; None before there is a model and a verifier.
    """

    def __init__(self, settings: Settings, samplers: Mapping[str, Any], verifiers: Mapping[str, Any]) -> None:
        self._settings, self._pools = settings, {"model": samplers, "verifier": verifiers}
        self._asking: dict[tuple[str, str], asyncio.Future[Any]] = {}
        self._said: dict[tuple[str, str], Any] = {}
        self._failed: set[tuple[str, str]] = set()
        self._begin = time.monotonic()
        self.offer: Offer | None = None

    async def look(self) -> Offer | None:
        """Ask the pools anew, and say what is known.

        Pools at work answer late: what they said before holds meanwhile.
        """
        names = [(kind, name) for kind, pools in self._pools.items() for name in pools]
        for kind, name in names:
            if (kind, name) not in self._asking:
                self._asking[kind, name] = asyncio.ensure_future(_answer(self._pools[kind][name]))
        patience = self._settings.offer_ttl / 4
        await asyncio.wait(self._asking.values(), timeout=patience)
        for key in [key for key, asked in self._asking.items() if asked.done()]:
            self._take(key, self._asking.pop(key))
        complete = all(key in self._said or key in self._failed for key in names)
        if complete or self.offer is not None or time.monotonic() - self._begin > COMING_UP:
            models = tuple(self._said[key] for key in names if key in self._said and key[0] == "model")
            verifiers = tuple(self._said[key] for key in names if key in self._said and key[0] == "verifier")
            if models and verifiers:
                self.offer = self._offer(models, verifiers)
        return self.offer

    def _take(self, key: tuple[str, str], asked: asyncio.Future[Any]) -> None:
        if (error := asked.exception()) is None:
            self._said[key] = asked.result()
            self._failed.discard(key)
        else:
            if key not in self._failed:
                log.warning("%s %r does not come up: %s", *key, error)
            self._failed.add(key)

    def _offer(self, models: tuple[ModelOffer, ...], verifiers: tuple[VerifierOffer, ...]) -> Offer:
        names = [verifier.name for verifier in verifiers]
        return Offer(
            models=models,
            verifiers=verifiers,
            algorithms=algorithm_offers(),
            deterministic=self._settings.deterministic,
            auditors=tuple(name for name in self._settings.auditors if name in names),
        )


async def _answer(handle: Any) -> Any:
    return await handle.describe.remote()
