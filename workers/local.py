"""Search in this process, without Ray or Redis: the researcher's way in.

    found = search(
        load_generator("glyphs"), load_verifier("classifier"), "zero_order", 4000, condition=Condition(class_index=16)
    )

The same runner, engine and recipes as on the cluster: the same seed finds the same winner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.fingerprints import judge_print
from sitsearch.workers.engine.gradients import Here
from sitsearch.workers.engine.judge import (
    has_features,
    has_gradients,
    judges_sets,
    scores_by_name,
    set_scores,
    telling_features,
)
from sitsearch.workers.engine.offers import METHODS, method_named
from sitsearch.workers.engine.orders import Order, orders_of
from sitsearch.workers.engine.trajectory import Sample, made_of
from sitsearch.workers.errors import Unsuitable
from sitsearch.workers.jobs.job import Candidate, Progress, Result, Usage
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.defaults import is_log_probability, with_guide, with_sampler
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.start import JUDGES_SETS, NO_GRADIENTS, Run, start_run

DEFAULT_SAMPLER = SamplerChoice()


@dataclass(frozen=True)
class Found:
    """What a search found: its result, how it got there, and the images `[K, H, W, 3]` uint8, best first.

    `log` has its rounds, a JSON object each, for `sitsearch.verify`.
    """

    result: Result
    progress: Progress
    usage: Usage
    images: Tensor
    log: tuple[str, ...] = ()


def search(
    generator: Generator,
    verifier: Verifier | Mapping[str, Verifier],
    algorithm: str | Mapping[str, Any] = "auto",
    budget: int | Mapping[str, Any] = 1000,
    *,
    condition: Condition | Sequence[Condition],
    per_condition: int = 1,
    allocation: str = "uniform",
    sampler: Mapping[str, Any] | None = None,
    seed: int = 0,
    num_images: int = 1,
    diversity: float = 0.0,
    stop: Mapping[str, Any] | None = None,
    rule: str = "rank",
    auditors: Mapping[str, Verifier] | None = None,
    guide: str | Mapping[str, Any] | None = None,
    guides: Mapping[str, Verifier] | None = None,
    default_sampler: SamplerChoice = DEFAULT_SAMPLER,
    batch: int = 32,
    deterministic: bool = True,
) -> Found:
    """Spend a budget on the best images of `condition`, or on one for each of several.

    Args:
        generator: the model to search over.
        verifier: what selects; several of them, by name, are an ensemble.
        algorithm: a name, or `{"algorithm": name, ...options}`.
        budget: NFE, or the fields of `Budget`.
        condition: what to draw; a list of them is searched for together, for an image of each.
        per_condition: images of each of the list.
        allocation: how the list shares the budget, `uniform` or `adaptive`.
        sampler: fields of `SamplerChoice`; the rest are those of `default_sampler`.
        seed: of every random draw.
        num_images: how many of the best to return.
        diversity: how much it counts that they differ, from 0, the best by score, to 1.
        stop: fields of `StopRules`.
        rule: of an ensemble, see `sitsearch.workers.search.runs.selection`.
        auditors: by name; they are asked of the best so far and never select.
        guide: name of the verifier whose gradient trajectories follow, or the fields of `GuideChoice`; "off" lets
            `auto` follow none.
        guides: verifiers by name that select nothing, for `guide` to name.
        default_sampler: for instance the model card's.
        batch, deterministic: see `Engine`.

    Raises:
        UnknownName: no such algorithm or sampling method.
        Unsuitable, BudgetTooSmall: see `SearchRun` and `ManyRun`.
        pydantic.ValidationError: a field is unknown or out of range.
    """
    selecting = dict(verifier) if isinstance(verifier, Mapping) else {"verifier": verifier}
    guiding = dict(guides or {})
    ensemble = {"name": "ensemble", "members": list(selecting), "rule": rule}
    choice = ensemble if len(selecting) > 1 else next(iter(selecting))
    conditions = [condition] if isinstance(condition, Condition) else list(condition)
    asked: list[dict[str, Any]] = [{"class": one.class_index, "prompt": one.prompt} for one in conditions]
    request = GenerateRequest.model_validate(
        {
            "condition": asked[0] if isinstance(condition, Condition) else {"many": asked},
            "per_condition": per_condition,
            "allocation": allocation,
            "budget": {"nfe": budget} if isinstance(budget, int) else dict(budget),
            "verifier": choice,
            "auditors": list(auditors or {}),
            "guide": guide if guide is None or isinstance(guide, str) else dict(guide),
            "search": algorithm if isinstance(algorithm, str) else dict(algorithm),
            "sampler": dict(sampler or {}),
            "seed": seed,
            "num_images": num_images,
            "diversity": diversity,
            "stop": dict(stop or {}),
        }
    )
    every = selecting | guiding | dict(auditors or {})
    request = with_sampler(request, default_sampler, METHODS.values())
    logs = [name for name, one in every.items() if is_log_probability(*one.range)]
    request = with_guide(request, [name for name, one in every.items() if has_gradients(one)], (), logs)
    engine = Engine(generator, batch=batch, deterministic=deterministic)
    return run_request(engine, every, request, conditions=conditions)


def run_request(
    engine: Engine,
    verifiers: Mapping[str, Verifier],
    request: GenerateRequest,
    *,
    conditions: Sequence[Condition],
    watch: Callable[[Run], None] | None = None,
) -> Found:
    """Run a request to its end in this process.

    Args:
        engine: over the model to search; `request.model` is not looked up.
        verifiers: by name, those that the request names: what selects, and its auditors.
        request: as `POST /generate` takes it, its sampler's fields filled in.
        conditions: what `request.condition` means: one, or as many as it names, in its order.
        watch: called with the run after every round.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    for field, name in request.verifiers:
        if not request.condition.is_many and judges_sets(verifiers[name]):
            raise Unsuitable(field, JUDGES_SETS.format(name=name))
    if request.gradient is not None and not has_gradients(verifiers[request.gradient.verifier]):
        able = ", ".join(name for name, verifier in verifiers.items() if has_gradients(verifier)) or "none"
        raise Unsuitable("guide.verifier", NO_GRADIENTS.format(name=request.gradient.verifier, able=able))
    run = start_run(request, method_named(request.sampler.method), METHODS.values())
    engine.guides = Here(verifiers, engine.generator.decoder, batch=engine.batch)
    here = _Here(engine, verifiers, request, conditions, watch)
    deadline = None if request.budget.seconds is None else time.monotonic() + request.budget.seconds
    _complete(drive(run, here, out_of_time=lambda: deadline is not None and time.monotonic() >= deadline))
    images = torch.stack([here.images[c.id] for c in run.best])
    return Found(run.result(), run.progress, run.usage, images, tuple(here.rounds))


class _Here(InMemory[Tensor]):
    """Carries out a run in this process. Nothing of it ever waits."""

    def __init__(
        self,
        engine: Engine,
        verifiers: Mapping[str, Verifier],
        request: GenerateRequest,
        conditions: Sequence[Condition],
        watch: Callable[[Run], None] | None,
    ) -> None:
        device = engine.generator.device
        self.rounds: list[str] = []
        super().__init__(
            {name: judge_print(verifier, device=device, batch=engine.batch) for name, verifier in verifiers.items()}
        )
        self._engine, self._request, self._conditions, self._watch = engine, request, conditions, watch
        self._scorers = {name: Scorer(verifier, batch=engine.batch) for name, verifier in verifiers.items()}
        selectors = [verifiers[name] for name in request.verifier.names]
        self._selector = selectors[0]
        self._telling = next(filter(has_features, selectors), self._selector)
        self._preview = any("preview" in verifiers[name].needs for name in request.verifier.names)
        self.sets = request.condition.is_many and judges_sets(self._selector)

    async def make(self, proposals: Sequence[Proposal]) -> Made[Tensor]:
        orders = orders_of(proposals, self._request.sampler, self._conditions, preview=self._preview)
        return made_of(sample_all(self._engine, orders), by=self._engine.fingerprint)

    async def score(
        self, names: Sequence[str], images: Tensor, conditions: Sequence[int], previews: Tensor | None
    ) -> list[dict[str, float]]:
        wanted = [self._conditions[place] for place in conditions]
        return scores_by_name(self._scorers, names, images, wanted, previews)

    async def score_set(self, images: Tensor, chosen: Sequence[Tensor]) -> tuple[list[float], list[Tensor]]:
        assert judges_sets(self._selector)
        scores, features = set_scores(self._selector, images, torch.stack(list(chosen)) if chosen else None)
        return scores, [row.clone() for row in features]

    async def features(self, images: Sequence[Tensor]) -> list[list[float]]:
        return telling_features(self._telling, torch.stack(list(images)), batch=self._engine.batch)

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, Tensor]]) -> None:
        await super().log(run, entry, fresh)
        self.rounds.append(entry.text)
        if self._watch is not None:
            self._watch(run)


def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits, whether or not an event loop runs already (as in a notebook)."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a search in this process had to wait for something")


def sample_all(engine: Engine, orders: Sequence[Order], job: str = "local") -> tuple[Sample, ...]:
    """Make orders to their end, in order."""
    ticket = engine.submit(job, orders)
    while True:
        for done in engine.step():
            if done.ticket == ticket:
                return done.samples
