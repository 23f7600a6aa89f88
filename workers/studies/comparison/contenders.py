"""Who is compared: algorithms with their options, and the requests that they answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sitsearch.workers.engine.offers import METHODS, method_named
from sitsearch.workers.errors import UnknownName
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.defaults import with_sampler
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.studies.comparison.tasks import Asked, Task

#: `label=algorithm:{options}`, of which only the algorithm must be there.
_FORM = re.compile(r"(?:(?P<label>[^:={}]+)=)?(?P<algorithm>[^:={}]+)(?::(?P<options>\{.*\}))?", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """An algorithm with its options.

    Attributes:
        label: its name in the log and in the report.
        algorithm: a registered one.
        options: fields of the request's `search`: options of the algorithm, or a `preset`.
        sampler: fields of `SamplerChoice` in which it departs from its task.
        guide: fields of `GuideChoice`, by the task's selector; None guides nothing. `auto` has one of its own unless it
            is "off".
    """

    label: str
    algorithm: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sampler: Mapping[str, Any] = field(default_factory=dict, hash=False)
    guide: Mapping[str, Any] | str | None = field(default=None, hash=False)


def contender_of(text: str) -> Contender:
    """The contender of `name`, `name:{options}` or `label=name:{options}`; options are JSON.

    `sampler` and `guide` may be among them.

    Without a label, the text is its own.

    Raises:
        ValueError: it has another form, or the options are no JSON object.
        UnknownName: no such algorithm.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"a contender is `name`, `name:{{options}}` or `label=name:{{options}}`, not {text!r}")
    name = found["algorithm"]
    if name not in ALGORITHMS:
        raise UnknownName("algorithm", name, ALGORITHMS)
    try:
        options = json.loads(found["options"] or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"the options of contender {text!r} are no JSON object: {error}") from error
    sampler = options.pop("sampler", {})
    if not isinstance(sampler, dict):
        raise ValueError(f"`sampler` of contender {text!r} must be a JSON object, not {sampler!r}")
    guide = options.pop("guide", {} if getattr(ALGORITHMS[name], "chooses_guide", False) else None)
    return Contender(found["label"] or text, name, options, sampler, guide)


def contenders_of(texts: Iterable[str]) -> list[Contender]:
    """The contenders of some texts; raises as `contender_of`, and ValueError if two have one label."""
    found = [contender_of(text) for text in texts]
    labels = [contender.label for contender in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"labels must differ: {twice[0]!r} is there {labels.count(twice[0])} times")
    return found


def request_of(task: Task, contender: Contender, budget: int, asked: Asked, seed: int) -> GenerateRequest:
    """What one search is asked; the same seed and condition draw the same start noises for every contender.

    Raises:
        pydantic.ValidationError: a field is unknown or out of range.
    """
    request = GenerateRequest.model_validate(
        {
            "model": task.model,
            "condition": {"class": asked.condition.class_index, "prompt": asked.condition.prompt},
            "budget": {"nfe": budget},
            "verifier": task.selector,
            "search": {"algorithm": contender.algorithm, **contender.options},
            "sampler": {**task.sampler, **contender.sampler},
            "guide": _guide(task, contender),
            "seed": 1000 * seed + asked.place,
        }
    )
    return with_sampler(request, SamplerChoice(method=task.method), METHODS.values())


def _guide(task: Task, contender: Contender) -> Mapping[str, Any] | str | None:
    """What guides: the selector, which the task's judges see through."""
    guide = contender.guide
    return guide if guide is None or isinstance(guide, str) else {"verifier": task.selector, "unaudited": True, **guide}


def run_of(request: GenerateRequest) -> SearchRun:
    """A fresh run; raises as `SearchRun`, and UnknownName for a sampling method that is not there."""
    return SearchRun(request, method_named(request.sampler.method), METHODS.values())


def said_of(request: GenerateRequest) -> dict[str, Any]:
    """What the log says of a contender: `options`, and `sampler` as far as it is not the default."""
    choice = request.sampler
    said = {"method": choice.method, "steps": choice.steps, "guidance": choice.guidance}
    options = request.search.model_dump(mode="json", exclude_unset=True)
    options.pop("algorithm", None)
    if request.guide is not None:
        options["guide"] = request.guide.model_dump(mode="json", exclude_defaults=True, exclude={"unaudited"})
    return {"options": options, "sampler": choice.model_dump(mode="json", exclude_defaults=True) | said}
