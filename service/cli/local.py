"""A search in the process of the command line: the one place under service/ that loads models."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import torch
from pydantic import ValidationError

from models.catalog import ModelCard, load_generator, load_verifier, model_card
from models.condition import Condition
from service.client import Problem
from workers.engine import Engine
from workers.errors import SitsearchError
from workers.images import encode_png
from workers.jobs.schemas import GenerateRequest, SamplerChoice
from workers.local import run_request
from workers.offers import METHODS
from workers.search import ALGORITHMS
from workers.search.defaults import with_sampler
from workers.search.run import SearchRun
from workers.settings import settings


def search_here(
    body: dict[str, Any], *, watch: Callable[[dict[str, Any]], None]
) -> tuple[str, dict[str, Any], list[bytes]]:
    """Run the request `body` in this process.

    Args:
        body: as `POST /generate` takes it.
        watch: shown the job's state after every round.

    Returns:
        A name for the search, its record in the form of a job's, and the PNG files, best first.

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
) -> tuple[str, dict[str, Any], list[bytes]]:
    card, config = model_card(request.model), settings()
    name = request.search.algorithm
    stochastic = name in ALGORITHMS and ALGORITHMS[name].stochastic
    request = with_sampler(request, SamplerChoice(**card.sampler), METHODS.values(), stochastic=stochastic)
    torch.set_num_threads(os.cpu_count() or 1)
    generator = load_generator(
        request.model, device="cuda" if torch.cuda.is_available() else "cpu", dtype=getattr(torch, config.dtype)
    )

    def show(run: SearchRun) -> None:
        watch({"status": "running", "progress": run.progress.model_dump()})

    found = run_request(
        Engine(generator, batch=config.batch, deterministic=config.deterministic),
        load_verifier(request.verifier.name),
        request,
        condition=_condition(request, card),
        watch=show,
    )
    record = {
        "request": request.model_dump(mode="json"),
        "result": found.result.model_dump(mode="json"),
        "progress": found.progress.model_dump(mode="json"),
        "usage": found.usage.model_dump(mode="json"),
    }
    best = zip(found.images.numpy(), found.result.images, strict=True)
    return uuid.uuid4().hex, record, [encode_png(image, ranked.candidate) for image, ranked in best]


def _condition(request: GenerateRequest, card: ModelCard) -> Condition:
    """What is asked for, a class by its name or index.

    Raises:
        ValueError: the model has no such class.
    """
    wanted, index = request.condition.class_, None
    if wanted is not None:
        names = list(card.classes)
        if wanted in names:
            index = names.index(str(wanted))
        elif str(wanted).isdecimal() and int(wanted) < len(names):
            index = int(wanted)
        else:
            raise ValueError(f"condition.class: no class {wanted!r} (allowed: {', '.join(names)})")
    prompt = request.condition.prompt
    if prompt is None and index is not None:
        prompt = card.template.format(card.classes[index])
    return Condition(class_index=index, prompt=prompt)
