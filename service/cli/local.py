"""A search in the process of the command line: the one place under service/ that loads models."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import ValidationError

from sitsearch.models.catalog import ModelCard, load_generator, load_verifier, model_card, verifier_card
from sitsearch.models.verifiers.base import Verifier
from sitsearch.service.client import Problem
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.judge import has_gradients
from sitsearch.workers.engine.machine import network_dtype, take_machine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import conditions_of
from sitsearch.workers.errors import SitsearchError
from sitsearch.workers.jobs.images import encode_png
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.proof import with_proof
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.local import run_request
from sitsearch.workers.search.runs.defaults import class_index, is_log_probability, with_guide, with_sampler
from sitsearch.workers.search.runs.start import Run
from sitsearch.workers.settings import settings


def search_here(
    body: dict[str, Any], *, watch: Callable[[dict[str, Any]], None]
) -> tuple[str, dict[str, Any], list[bytes], tuple[str, ...]]:
    """Run the request `body` in this process.

    Args:
        body: as `POST /generate` takes it.
        watch: shown the job's state after every round.

    Returns:
        A name for the search, its record in the form of a job's, the PNG files, best first, and its log's rounds.

    Raises:
        Problem: the request is refused, for the same reasons as by the service.
    """
    try:
        return _search(GenerateRequest.model_validate(body), watch)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise Problem(422, {"detail": f"{field}: {first['msg']}"}) from None
    except (SitsearchError, ValueError) as error:
        raise Problem(422, {"detail": str(error)}) from None


def _search(
    request: GenerateRequest, watch: Callable[[dict[str, Any]], None]
) -> tuple[str, dict[str, Any], list[bytes], tuple[str, ...]]:
    card, config = model_card(request.model), settings()
    request = with_sampler(request, SamplerChoice(**card.sampler), METHODS.values())
    take_machine()
    verifiers = {name: load_verifier(name) for _, name in request.verifiers}
    auditing = {} if request.auditors else _auditors(request, config.auditors)
    able = [name for name, verifier in verifiers.items() if has_gradients(verifier)]
    logs = [name for name, verifier in verifiers.items() if is_log_probability(*verifier.range)]
    request = with_guide(request, able, tuple(auditing), logs)
    verifiers = auditing | verifiers
    indices = _class_indices(request, card)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = load_generator(request.model, device=device, dtype=network_dtype(config.dtype, device))

    def show(run: Run) -> None:
        watch({"status": "running", "progress": run.progress.model_dump()})

    found = run_request(
        Engine(generator, batch=config.batch, deterministic=config.deterministic),
        verifiers,
        request,
        conditions=conditions_of(request, indices, card.classes, card.template),
        watch=show,
    )
    record = {
        "request": request.model_dump(mode="json"),
        "result": found.result.model_dump(mode="json"),
        "progress": found.progress.model_dump(mode="json"),
        "usage": found.usage.model_dump(mode="json"),
    }
    job = Job(id=uuid.uuid4().hex, request=request, class_indices=indices, created_at=time.time())
    best = zip(found.images.numpy(), found.result.images, strict=True)
    pngs = [encode_png(image, ranked.candidate) for image, ranked in best]
    proven = [with_proof(png, rank, found.result, job) for rank, png in enumerate(pngs)]
    return job.id, record, proven, found.log


def _auditors(request: GenerateRequest, names: Sequence[str]) -> dict[str, Verifier]:
    """Of the default auditors those that can look at an image of what is asked for."""
    cards = [verifier_card(name) for name in names if not request.condition.is_many]
    found = {card.name: load_verifier(card.name) for card in cards if request.model in (card.models or [request.model])}
    lacking = {"preview"} | ({"class"} if request.condition.each[0].class_ is None else set())
    return {name: verifier for name, verifier in found.items() if not verifier.needs & lacking}


def _class_indices(request: GenerateRequest, card: ModelCard) -> tuple[int, ...]:
    """Of the classes that are asked for, by their names or indices; none where prompts are.

    Raises:
        ValueError: the model has no such class.
    """
    indices = []
    for place, one in enumerate(request.condition.each):
        if one.class_ is None:
            continue
        index = class_index(one.class_, card.classes)
        if index is None:
            field = request.condition.field(place, "class")
            raise ValueError(f"{field}: no class {one.class_!r} (allowed: {', '.join(card.classes)})")
        indices.append(index)
    return tuple(indices)
