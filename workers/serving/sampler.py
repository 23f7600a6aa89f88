"""The sampler deployment: one engine on a thread of its own, fed and answered from the replica's event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from ray.serve.handle import DeploymentHandle

from sitsearch.models.catalog import load_generator, model_card
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import buckets
from sitsearch.workers.engine.machine import network_dtype, take_machine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.submissions import Done
from sitsearch.workers.engine.trajectory import made_of, planned_rows
from sitsearch.workers.jobs.offer import ModelOffer
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.serving.guides import Guides
from sitsearch.workers.serving.health import Health
from sitsearch.workers.serving.scaling import QUEUED_SECONDS
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that a forward may take.
STILL = 900.0


class SamplerReplica:
    """Samples trajectories of one model; calls of many jobs share its forwards.

    Args:
        model: name of the model card.
        settings: the deployment's settings, as `Settings.model_dump` gives them.
        verifiers: handle of the verifier deployment by verifier name, for their gradients.
    """

    def __init__(
        self, model: str, settings: dict[str, Any], verifiers: Mapping[str, DeploymentHandle] | None = None
    ) -> None:
        config = Settings(**settings)
        take_machine(config.sampler_threads)
        self.card = model_card(model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        generator = load_generator(model, device=device, dtype=network_dtype(config.dtype, device))
        self._parameters, self._macs = generator.parameters, generator.macs
        if config.compile:
            generator.compile()
        self._engine = Engine(
            generator,
            batch=config.batch,
            deterministic=config.deterministic,
            buckets=buckets(config.batch) if config.compile else None,
            latent_bytes=config.latent_mb * 2**20,
        )
        self._verifiers = dict(verifiers or {})
        self._health, self._alive_at = Health(), time.monotonic()
        self._inbox: list[Callable[[], None]] = []
        self._wake = threading.Condition()
        self._queued = 0  # network rows that were ordered and are not answered for yet, as planned
        self._waiting: dict[int, Callable[[Done], None]] = {}
        warm: Future[float] = Future()
        self._thread = threading.Thread(target=self._work, args=(warm,), name="engine", daemon=True)
        begin = time.monotonic()
        self._thread.start()
        self._rows_per_second = warm.result()
        self._warm_up = time.monotonic() - begin

    def describe(self) -> ModelOffer:
        """What this replica can sample."""
        card = self.card
        return ModelOffer(
            name=card.name,
            title=card.title,
            classes=card.classes,
            image_size=card.image_size,
            parameters=self._parameters,
            macs_per_forward=self._macs,
            samplers=tuple(METHODS.values()),
            default_sampler=SamplerChoice(**card.sampler),
            license=card.license,
            template=card.template,
            forwards_per_second=round(self._rows_per_second, 1),
            warm_up_seconds=round(self._warm_up, 3),
            warm_up_forwards=self._engine.warm_up_forwards,
            fingerprint=self._engine.fingerprint,
        )

    def check_health(self) -> None:
        """Called by Serve; a replica is replaced whose device is broken, whose orders only fail, or which stands."""
        self._health.check()
        still = time.monotonic() - self._alive_at
        if self._engine.busy and not self._engine.waiting and still > STILL:
            raise RuntimeError(f"the engine has made no step for {still:.0f} s")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve where the pool scales; see `sitsearch.workers.serving.scaling`."""
        return {QUEUED_SECONDS: self._queued / self._rows_per_second}

    async def sample(
        self,
        job: str,
        orders: Sequence[Order],
        priority: float = 1.0,
        lent: Sequence[np.ndarray | None] | None = None,
    ) -> Made[np.ndarray]:
        """Make `orders`; `priority` as in `GenerateRequest`.

        Of a job whose samples guide others, `lent` are the states of the references that its orders share, as far as
        they are known; then the states of what is made are answered too.

        Cancelling the call drops what is not sampled yet.

        Raises:
            ValueError: see `Engine.submit`; or a recipe cannot be carried out.
        """
        loop = asyncio.get_running_loop()
        if self._engine.guides is None:
            self._engine.guides = Guides(self.card.name, self._verifiers, loop, lambda: self._post(lambda: None))
        answer: asyncio.Future[Done] = loop.create_future()
        tickets: list[int] = []

        def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
            loop.call_soon_threadsafe(lambda: None if answer.done() else set_outcome(outcome))

        def submit() -> None:
            try:
                if lent:
                    states = [None if state is None else torch.from_numpy(state.copy()) for state in lent]
                    self._engine.lend(job, orders[0], states)
                tickets.append(self._engine.submit(job, orders, priority=priority))
            except Exception as error:  # whatever it is, other orders go on
                settle(answer.set_exception, error)
            else:
                self._waiting[tickets[0]] = ended

        def ended(done: Done) -> None:
            self._health.took(done.error)
            if done.error is None:
                settle(answer.set_result, done)
            else:
                settle(answer.set_exception, done.error)

        def cancel() -> None:
            for ticket in tickets:
                self._engine.cancel(ticket)
                self._waiting.pop(ticket, None)

        planned = sum(planned_rows(order) for order in orders)
        self._queued += planned
        self._post(submit)
        try:
            done = await answer
        except asyncio.CancelledError:
            self._post(cancel)
            raise
        finally:
            self._queued -= planned
        made = made_of(done.samples, by=self._engine.fingerprint)
        return Made(
            images=made.images.numpy(),
            nfe=made.nfe,
            forwards=made.forwards,
            nfe_again=made.nfe_again,
            forwards_again=made.forwards_again,
            previews=None if made.previews is None else made.previews.numpy(),
            gradients=made.gradients,
            gradients_again=made.gradients_again,
            broken=made.broken,
            by=made.by,
            states=None if lent is None else torch.stack([sample.x.cpu() for sample in done.samples]).numpy(),
        )

    def _post(self, action: Callable[[], None]) -> None:
        """Have the engine's thread do something before its next step."""
        with self._wake:
            self._inbox.append(action)
            self._wake.notify()

    def _work(self, warm: Future[float]) -> None:
        """The engine's thread. It warms up too: CUDA graphs and OpenMP's threads belong to the thread that made them.

        Args:
            warm: what `Engine.measure` found, or raised.
        """
        try:
            warm.set_result(self._engine.measure())
        except Exception as error:
            return warm.set_exception(error)
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._inbox or (self._engine.busy and not self._engine.waiting))
                    actions, self._inbox = self._inbox, []
                for action in actions:
                    action()
                self._alive_at = time.monotonic()
                for done in self._engine.step():
                    self._waiting.pop(done.ticket)(done)
        except Exception:
            log.exception("the engine failed, so this replica ends")
            os._exit(1)  # whoever waits learns of it at once, and calls another replica
