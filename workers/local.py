"""Search in this process, without Ray or Redis: the researcher's way in.

    found = search(
        load_generator("glyphs"), load_verifier("classifier"), "zero_order", 4000, condition=Condition(class_index=16)
    )

The same runner, engine and recipes as on the cluster: the same seed finds the same winner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.judge import Judge
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.trajectory import Order, Sample
from sitsearch.workers.errors import UnknownName
from sitsearch.workers.jobs.job import Candidate, Progress, Result, Usage
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.defaults import with_sampler
from sitsearch.workers.search.runs.start import Run, start_run

DEFAULT_SAMPLER = SamplerChoice()


@dataclass(frozen=True)
class Found:
    """What a search found: its result, how it got there, and the images `[K, H, W, 3]` uint8, best first."""

    result: Result
    progress: Progress
    usage: Usage
    images: Tensor


def search(
    generator: Generator,
    verifier: Verifier | Mapping[str, Verifier],
    algorithm: str | Mapping[str, Any] = "random",
    budget: int | Mapping[str, Any] = 1000,
    *,
    condition: Condition,
    sampler: Mapping[str, Any] | None = None,
    seed: int = 0,
    num_images: int = 1,
    stop: Mapping[str, Any] | None = None,
    rule: str = "rank",
    auditors: Mapping[str, Verifier] | None = None,
    default_sampler: SamplerChoice = DEFAULT_SAMPLER,
    batch: int = 32,
    deterministic: bool = True,
) -> Found:
    """Spend a budget on the best images of `condition`.

    Args:
        generator: the model to search over.
        verifier: what selects; several of them, by name, are an ensemble.
        algorithm: a name, or `{"algorithm": name, ...options}`.
        budget: NFE, or the fields of `Budget`.
        condition: what to draw.
        sampler: fields of `SamplerChoice`; the rest are those of `default_sampler`.
        seed: of every random draw.
        num_images: how many of the best to return.
        stop: fields of `StopRules`.
        rule: of an ensemble, see `sitsearch.workers.search.runs.selection`.
        auditors: by name; they are asked of the best so far and never select.
        default_sampler: for instance the model card's.
        batch, deterministic: see `Engine`.

    Raises:
        UnknownName: no such algorithm or sampling method.
        Unsuitable, BudgetTooSmall: see `SearchRun`.
        pydantic.ValidationError: a field is unknown or out of range.
    """
    selecting = dict(verifier) if isinstance(verifier, Mapping) else {"verifier": verifier}
    ensemble = {"name": "ensemble", "members": list(selecting), "rule": rule}
    choice = ensemble if len(selecting) > 1 else next(iter(selecting))
    request = GenerateRequest.model_validate(
        {
            "condition": {"class": condition.class_index, "prompt": condition.prompt},
            "budget": {"nfe": budget} if isinstance(budget, int) else dict(budget),
            "verifier": choice,
            "auditors": list(auditors or {}),
            "search": algorithm if isinstance(algorithm, str) else dict(algorithm),
            "sampler": dict(sampler or {}),
            "seed": seed,
            "num_images": num_images,
            "stop": dict(stop or {}),
        }
    )
    name = request.search.algorithm
    stochastic = name in ALGORITHMS and ALGORITHMS[name].stochastic
    request = with_sampler(request, default_sampler, METHODS.values(), stochastic=stochastic)
    engine = Engine(generator, batch=batch, deterministic=deterministic)
    return run_request(engine, selecting | dict(auditors or {}), request, conditions=[condition])


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
        conditions: what `request.condition` means: one, or one for each of its `classes`.
        watch: called with the run after every round.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    run = start_run(request, method_named(request.sampler.method))
    judge, many = Judge(verifiers, batch=engine.batch), bool(request.condition.classes)
    deadline = None if request.budget.seconds is None else time.monotonic() + request.budget.seconds
    preview = any("preview" in verifiers[name].needs for name in request.verifier.names)
    images: dict[str, Tensor] = {}
    while proposals := run.ask(out_of_time=deadline is not None and time.monotonic() >= deadline):
        samples = sample_all(engine, orders_of(proposals, request.sampler, conditions, preview=preview))
        pictures = torch.stack([s.image for s in samples])
        wanted = [conditions[p.condition] for p in proposals]
        previews = torch.stack([s.preview for s in samples if s.preview is not None]) if preview else None
        scores = judge.scores(
            request.verifier.names, [p.id for p in proposals], pictures, wanted, previews=previews, sets=many
        )
        run.tell(
            [
                Candidate(
                    id=p.id,
                    recipe=p.recipe,
                    nfe=s.nfe,
                    forwards=s.forwards,
                    scores=row,
                    phase=run.phase,
                    condition=p.condition,
                )
                for p, s, row in zip(proposals, samples, scores, strict=True)
            ]
        )
        judge.choose(run.best[-1].id)
        images |= {p.id: s.image for p, s in zip(proposals, samples, strict=True)}
        images = {candidate.id: images[candidate.id] for candidate in run.kept}
        if (winner := run.to_audit) is not None:
            (audits,) = judge.scores(request.auditors, [winner.id], images[winner.id][None], [conditions[0]])
            run.audit(audits)
        if watch is not None:
            watch(run)
    return Found(run.result(), run.progress, run.usage, torch.stack([images[c.id] for c in run.best]))


def method_named(name: str) -> SamplerOffer:
    """What a step of the sampling method `name` costs.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in METHODS:
        raise UnknownName("sampling method", name, METHODS)
    return METHODS[name]


def orders_of(
    proposals: Sequence[Proposal], sampler: SamplerChoice, conditions: Sequence[Condition], *, preview: bool = False
) -> list[Order]:
    """What the engine is to make for a round's proposals, with previews if a verifier needs them."""
    return [Order(p.recipe, conditions[p.condition], sampler, p.known, p.evaluated, preview) for p in proposals]


def sample_all(engine: Engine, orders: Sequence[Order], job: str = "local") -> tuple[Sample, ...]:
    """Make orders to their end, in order."""
    ticket = engine.submit(job, orders)
    while True:
        for done in engine.step():
            if done.ticket == ticket:
                return done.samples
