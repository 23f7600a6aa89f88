"""Search in this process, without Ray or Redis: the researcher's way in.

    best = search(load_generator("glyphs"), load_verifier("classifier"), request, class_index=16)

The same runner, engine and recipes as on the cluster: the same seed finds the same winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.generator import Generator
from models.samplers import evaluations_per_step
from models.verifiers.base import Verifier, score_pictures
from workers.engine import Engine, Order, Sample
from workers.jobs.schemas import Candidate, GenerateRequest, Progress, Result, Usage
from workers.search.run import SearchRun


@dataclass(frozen=True)
class Found:
    """What a search found: its result, how it got there, and the images `[K, H, W, 3]` uint8, best first."""

    result: Result
    progress: Progress
    usage: Usage
    images: Tensor


def sample_all(engine: Engine, orders: Sequence[Order]) -> tuple[Sample, ...]:
    """Sample orders to their end, in order."""
    ticket = engine.submit("local", orders)
    while True:
        for done in engine.step():
            if done.ticket == ticket:
                return done.samples


def search(
    generator: Generator,
    verifier: Verifier,
    request: GenerateRequest,
    *,
    class_index: int,
    batch: int = 32,
    deterministic: bool = True,
) -> Found:
    """Run `request` to its end in this process.

    Args:
        generator: the model to search over; `request.model` is not looked up.
        verifier: what selects; its scores stand under `request.verifier.name`.
        request: as `POST /generate` takes it.
        class_index: the condition's class.
        batch: network rows of one forward, and images of one call of the verifier.
        deterministic: pad every forward to `batch` rows.

    Raises:
        UnknownName, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    engine = Engine(generator, batch=batch, deterministic=deterministic)
    sampler, name = request.sampler, request.verifier.name
    run = SearchRun(request, evaluations_per_step(sampler.method))
    images: dict[str, Tensor] = {}
    while proposals := run.ask():
        samples = sample_all(
            engine, [Order(p.recipe, class_index, sampler.method, p.steps, sampler.guidance) for p in proposals]
        )
        pictures = torch.stack([s.image for s in samples])
        scores = score_pictures(verifier, pictures, torch.full((len(pictures),), class_index), batch=batch)
        run.tell(
            [
                Candidate(
                    id=p.id,
                    recipe=p.recipe,
                    steps=p.steps,
                    nfe=s.nfe,
                    forwards=s.forwards,
                    scores={name: score},
                    phase=run.phase,
                )
                for p, s, score in zip(proposals, samples, scores, strict=True)
            ]
        )
        images |= {p.id: s.image for p, s in zip(proposals, samples, strict=True)}
        images = {candidate.id: images[candidate.id] for candidate in run.best}
    return Found(run.result(), run.progress, run.usage, torch.stack([images[c.id] for c in run.best]))
