"""Whether this deployment can do what a request asks: names, classes, options and budget against the offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema

from service.gateway.problems import FieldError, Invalid, printable
from workers.errors import BudgetTooSmall
from workers.jobs.schemas import GenerateRequest, ModelOffer, Offer
from workers.search.plan import make_plan


def _find(field: str, name: str, offers: Iterable[Any]) -> Any:
    known = {offer.name: offer for offer in offers}
    if name not in known:
        what = field.split(".")[0]
        raise Invalid(
            f"unknown-{what}",
            [FieldError(field=field, message=f"{printable(name)!r} is not offered here", allowed=sorted(known))],
        )
    return known[name]


def class_index(request: GenerateRequest, model: ModelOffer) -> int:
    """The index of the request's class.

    Raises:
        Invalid: there is no class, or not this one.
    """
    wanted = request.condition.class_
    if wanted is None:
        message = f"model {model.name!r} is conditioned on a class; a prompt alone is not enough"
        raise Invalid("unknown-class", [FieldError(field="condition.class", message=message, allowed=list(model.classes))])
    if isinstance(wanted, str) and wanted in model.classes:
        return model.classes.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(model.classes):
        return wanted
    message = f"{printable(str(wanted))!r} is neither a class name nor an index from 0 to {len(model.classes) - 1}"
    raise Invalid("unknown-class", [FieldError(field="condition.class", message=message, allowed=list(model.classes))])


def check_options(options: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Hold an algorithm's options against its JSON schema.

    Raises:
        Invalid: an option is unknown, of the wrong type or out of range.
    """
    validator = jsonschema.Draft202012Validator(dict(schema))
    errors = []
    for error in validator.iter_errors(dict(options)):
        path = ".".join(["search", *(str(part) for part in error.absolute_path)])
        allowed = sorted(schema.get("properties", {})) if error.validator == "additionalProperties" else None
        errors.append(FieldError(field=path, message=printable(error.message), allowed=allowed))
    if errors:
        raise Invalid("invalid-options", errors)


def check(request: GenerateRequest, offer: Offer, *, max_nfe: int) -> int:
    """Everything that the schema cannot know; returns the class index.

    Raises:
        Invalid: the field at fault, and what is allowed.
    """
    model = _find("model", request.model, offer.models)
    verifier = _find("verifier.name", request.verifier.name, offer.verifiers)
    if request.model not in verifier.models:
        fitting = sorted(v.name for v in offer.verifiers if request.model in v.models)
        message = f"{verifier.name!r} cannot score images of model {request.model!r}"
        raise Invalid("unknown-verifier", [FieldError(field="verifier.name", message=message, allowed=fitting)])
    algorithm = _find("search.algorithm", request.search.algorithm, offer.algorithms)
    method = _find("sampler.method", request.sampler.method, model.samplers)
    index = class_index(request, model)
    check_options(request.search.options, algorithm.options_schema)
    try:
        plan = make_plan(request, method.evaluations_per_step)
    except BudgetTooSmall as error:
        message = (
            f"{error.given} is too small: {request.num_images} image(s) at {request.sampler.steps} steps of "
            f"{method.name} need at least {error.least}"
        )
        raise Invalid("budget-too-small", [FieldError(field=f"budget.{error.unit}", message=message)]) from error
    nfe = plan.candidate.nfe * plan.candidates + (plan.final.nfe * plan.finals if plan.final else 0)
    if nfe > max_nfe:
        unit = "nfe" if request.budget.nfe is not None else "forwards"
        message = f"this deployment allows at most {max_nfe} NFE a job; this one could spend {nfe}"
        raise Invalid("budget-too-large", [FieldError(field=f"budget.{unit}", message=message)])
    return index
