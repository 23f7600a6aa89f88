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

from models.condition import Condition
from models.generator import Generator
from models.verifiers.base import Verifier, score_pictures
from workers.engine import Engine
from workers.errors import UnknownName
from workers.jobs.schemas import Candidate, GenerateRequest, Progress, Result, SamplerChoice, SamplerOffer, Usage
from workers.offers import METHODS
from workers.search import ALGORITHMS
from workers.search.base import Proposal
from workers.search.defaults import with_sampler
from workers.search.run import SearchRun
from workers.trajectory import Order, Sample

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
    verifier: Verifier,
    algorithm: str | Mapping[str, Any] = "random",
    budget: int | Mapping[str, Any] = 1000,
    *,
    condition: Condition,
    sampler: Mapping[str, Any] | None = None,
    seed: int = 0,
    num_images: int = 1,
    stop: Mapping[str, Any] | None = None,
    default_sampler: SamplerChoice = DEFAULT_SAMPLER,
    batch: int = 32,
    deterministic: bool = True,
) -> Found:
    """Spend a budget on the best images of `condition`.

    Args:
        generator: the model to search over.
        verifier: what selects.
        algorithm: a name, or `{"algorithm": name, ...options}`.
        budget: NFE, or the fields of `Budget`.
        condition: what to draw.
        sampler: fields of `SamplerChoice`; the rest are those of `default_sampler`.
        seed: of every random draw.
        num_images: how many of the best to return.
        stop: fields of `StopRules`.
        default_sampler: for instance the model card's.
        batch, deterministic: see `Engine`.

    Raises:
        UnknownName: no such algorithm or sampling method.
        Unsuitable, BudgetTooSmall: see `SearchRun`.
        pydantic.ValidationError: a field is unknown or out of range.
    """
    request = GenerateRequest.model_validate(
        {
            "condition": {"class": condition.class_index, "prompt": condition.prompt},
            "budget": {"nfe": budget} if isinstance(budget, int) else dict(budget),
            "verifier": "verifier",
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
    return run_request(engine, verifier, request, condition=condition)


def run_request(
    engine: Engine,
    verifier: Verifier,
    request: GenerateRequest,
    *,
    condition: Condition,
    watch: Callable[[SearchRun], None] | None = None,
) -> Found:
    """Run a request to its end in this process.

    Args:
        engine: over the model to search; `request.model` is not looked up.
        verifier: what selects; its scores stand under `request.verifier.name`.
        request: as `POST /generate` takes it, its sampler's fields filled in.
        condition: what `request.condition` means.
        watch: called with the run after every round.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    run = SearchRun(request, method_named(request.sampler.method))
    deadline = None if request.budget.seconds is None else time.monotonic() + request.budget.seconds
    images: dict[str, Tensor] = {}
    while proposals := run.ask(out_of_time=deadline is not None and time.monotonic() >= deadline):
        samples = sample_all(engine, orders_of(proposals, request.sampler, condition))
        pictures = torch.stack([s.image for s in samples])
        scores = score_pictures(verifier, pictures, [condition] * len(pictures), batch=engine.batch)
        candidates = [
            Candidate(
                id=p.id,
                recipe=p.recipe,
                nfe=s.nfe,
                forwards=s.forwards,
                scores={request.verifier.name: score},
                phase=run.phase,
            )
            for p, s, score in zip(proposals, samples, scores, strict=True)
        ]
        run.tell(candidates)
        images |= {p.id: s.image for p, s in zip(proposals, samples, strict=True)}
        images = {candidate.id: images[candidate.id] for candidate in run.kept}
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


def orders_of(proposals: Sequence[Proposal], sampler: SamplerChoice, condition: Condition) -> list[Order]:
    """What the engine is to make for a round's proposals."""
    return [Order(p.recipe, condition, sampler, p.known, p.evaluated) for p in proposals]


def sample_all(engine: Engine, orders: Sequence[Order], job: str = "local") -> tuple[Sample, ...]:
    """Make orders to their end, in order."""
    ticket = engine.submit(job, orders)
    while True:
        for done in engine.step():
            if done.ticket == ticket:
                return done.samples
