"""Whether a well-formed request can be run here: names, options and budget against what the workers offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import pydantic
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from sitsearch.service.gateway.body import dotted
from sitsearch.service.gateway.problems import FieldError, Invalid
from sitsearch.workers.errors import BudgetTooSmall, Unsuitable
from sitsearch.workers.jobs.offer import AlgorithmOffer, ModelOffer, Offer, SamplerOffer, VerifierOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.runs.defaults import class_index, is_log_probability, with_guide, with_sampler
from sitsearch.workers.search.runs.plan import gradients_kept, reserved, sampling_of
from sitsearch.workers.search.runs.start import JUDGES_SETS, start_run

#: Problems of what does not go together, by the field at fault.
UNSUITABLE = {
    "stop": "stop-unsuitable",
    "guide": "guide-unsuitable",
    "auditors": "guide-unsuitable",
    "start_from": "start-unsuitable",
}

Named = TypeVar("Named", ModelOffer, VerifierOffer, AlgorithmOffer, SamplerOffer)


def admit(request: GenerateRequest, offer: Offer, *, max_nfe: int) -> tuple[GenerateRequest, tuple[int, ...]]:
    """The request as it will run, with the model's sampler defaults filled in, and the indices of its classes.

    Args:
        request: a well-formed request.
        offer: what the workers offer.
        max_nfe: the largest budget of one job.

    Raises:
        Invalid: a name is unknown here, an option is refused, or the budget is too small or too large; the error names
            the field and what is allowed.
    """
    model = _pick("model", "model", request.model, offer.models)
    indices = _class_indices(request, model)
    fitting = [verifier for verifier in offer.verifiers if not verifier.models or model.name in verifier.models]
    auditors = [v.name for v in fitting if v.name in offer.auditors and _can_audit(v, request, model)]
    able = [verifier.name for verifier in fitting if verifier.differentiable]
    request = with_guide(request, able, auditors, [v.name for v in fitting if is_log_probability(*v.range)])
    for field, name in request.verifiers:
        verifier = _pick(field, "verifier", name, fitting)
        _check_needs(field, verifier, request, model)
        if verifier.sets and not request.condition.is_many:
            single = (offer.name for offer in fitting if not offer.sets)
            raise _refusal("verifier-unsuitable", field, JUDGES_SETS.format(name=verifier.name), single)
        if "preview" in verifier.needs and field.startswith("auditors"):
            message = f"verifier {verifier.name!r} judges trajectories while they are made, and cannot audit"
            raise _refusal("verifier-unsuitable", field, message)
    _check_guide(request, fitting)
    algorithm = _pick("search.algorithm", "algorithm", request.search.algorithm, offer.algorithms)
    _check_options(algorithm, request.search.options)
    request = with_sampler(request, model.default_sampler, model.samplers)
    method = _pick("sampler.method", "sampler", request.sampler.method, model.samplers)
    if algorithm.stochastic and not method.stochastic:
        message = f"algorithm {algorithm.name!r} needs a stochastic method, not {method.name!r}"
        suited = (offer.name for offer in model.samplers if offer.stochastic)
        raise _refusal("sampler-unsuitable", "sampler.method", message, suited)
    _check_budget(request, method, model.samplers, max_nfe)
    return request, indices


def _refusal(slug: str, field: str, message: str, allowed: Iterable[Any] | None = None) -> Invalid:
    values = None if allowed is None else tuple(allowed)
    return Invalid([FieldError(field=field, message=message, allowed=values)], slug=slug)


def _pick(field: str, kind: str, name: str, offers: Sequence[Named]) -> Named:
    """The offer of that name."""
    for candidate in offers:
        if candidate.name == name:
            return candidate
    raise _refusal(f"unknown-{kind}", field, f"no {kind} {name!r} is offered here", (offer.name for offer in offers))


def _class_indices(request: GenerateRequest, model: ModelOffer) -> tuple[int, ...]:
    """The classes that are asked for, one a condition; none for a model that draws prompts."""
    asked, classes = request.condition, model.classes
    indices = []
    for place, one in enumerate(asked.each):
        field, wanted = asked.field(place, "class"), one.class_
        if wanted is None and classes:
            message = f"model {model.name!r} draws classes: give one, the prompt alone does not tell"
            raise _refusal("condition-unsuitable", field, message, classes)
        if wanted is not None and not classes:
            raise _refusal("condition-unsuitable", field, f"model {model.name!r} has no classes")
        if wanted is not None:
            index = class_index(wanted, classes)
            if index is None:
                message = f"no class {wanted!r}; give a name, or an index from 0 to {len(classes) - 1}"
                raise _refusal("unknown-class", field, message, classes)
            indices.append(index)
    return tuple(indices)


def _check_needs(field: str, verifier: VerifierOffer, request: GenerateRequest, model: ModelOffer) -> None:
    """Refuse conditions, and an allocation, that the verifier named by `field` cannot judge."""
    for place, one in enumerate(request.condition.each):
        if "class" in verifier.needs and one.class_ is None:
            at_fault = request.condition.field(place, "class")
            raise _refusal("condition-unsuitable", at_fault, f"verifier {verifier.name!r} needs a class")
        if "prompt" in verifier.needs and one.prompt is None and not model.template:
            at_fault = request.condition.field(place, "prompt")
            raise _refusal("condition-unsuitable", at_fault, f"verifier {verifier.name!r} needs a prompt")
    if verifier.sets and request.allocation == "adaptive":
        message = f"must be uniform: {verifier.name!r} judges sets, so that no condition has a best score of its own"
        raise _refusal("verifier-unsuitable", "allocation", message, ("uniform",))


def _can_audit(verifier: VerifierOffer, request: GenerateRequest, model: ModelOffer) -> bool:
    """Whether a verifier can look at the images that are asked for, as an auditor that nobody named."""
    try:
        _check_needs("auditors", verifier, request, model)
    except Invalid:
        return False
    return not verifier.sets and "preview" not in verifier.needs


def _check_guide(request: GenerateRequest, fitting: Sequence[VerifierOffer]) -> None:
    """Refuse a guide without gradients, and one of many conditions."""
    guide = request.guide
    if guide is None or not guide.enabled:
        return
    if request.condition.is_many:
        raise _refusal("guide-unsuitable", "guide", "goes with one condition; a search over many is not guided")
    able = [verifier.name for verifier in fitting if verifier.differentiable]
    if guide.verifier not in able:
        name = guide.verifier or request.verifier.name
        message = f"verifier {name!r} has no gradients to follow"
        raise _refusal("verifier-unsuitable", "guide.verifier", message, able)


def _check_options(algorithm: AlgorithmOffer, options: dict[str, Any]) -> None:
    schema = algorithm.options_schema
    known = schema.get("properties", {})
    errors = []
    for name in options:
        if name not in known and schema.get("additionalProperties") is False:
            message = f"algorithm {algorithm.name!r} has no such option"
            errors.append(FieldError(field=dotted(("search", name)), message=message, allowed=tuple(known)))
    recognised = {name: value for name, value in options.items() if name in known}
    for error in Draft202012Validator(schema).iter_errors(recognised):
        errors.append(_option_error(error))
    if errors:
        raise Invalid(errors, slug="invalid-option")


def _option_error(error: ValidationError) -> FieldError:
    if error.context:  # of an option that may be null: what is wrong with it as a value
        error = next((inner for inner in error.context if inner.validator != "type"), error.context[0])
    values: Any = error.validator_value
    allowed = tuple(values) if error.validator == "enum" else None
    path = ("search", *error.absolute_path)
    return FieldError(field=dotted(path), message=error.message[:300], allowed=allowed)


def _check_budget(
    request: GenerateRequest, method: SamplerOffer, methods: Iterable[SamplerOffer], max_nfe: int
) -> None:
    budget, sampler = request.budget, request.sampler
    for unit, value, most in (("nfe", budget.nfe, max_nfe), ("forwards", budget.forwards, max_nfe * sampler.rows)):
        if value is not None and value > most:
            raise _refusal("budget-too-large", f"budget.{unit}", f"at most {most} {unit} a job here")
    try:
        sampling = sampling_of(request, method)
        start_run(request, method, methods)
    except Unsuitable as error:
        slug = UNSUITABLE.get(error.field.partition(".")[0], "sampler-unsuitable")
        raise _refusal(slug, error.field, error.message) from None
    except pydantic.ValidationError as error:  # what an algorithm's schema does not tell
        found = [
            FieldError(field=dotted(("search", *one["loc"])), message=one["msg"].removeprefix("Value error, "))
            for one in error.errors()
        ]
        raise Invalid(found, slug="invalid-option") from None
    except BudgetTooSmall as error:
        rows = sampler.rows if error.unit == "forwards" else 1
        takes, last = sampling.whole * rows, reserved(request, sampling) * rows
        if error.unit == "gradients":
            takes, last = sampling.gradients_whole, gradients_kept(request, sampling)
        images = request.num_images * request.per_condition * len(request.condition.each)
        message = (
            f"{images} image{'s' if images > 1 else ''} by {request.search.algorithm!r}: "
            f"at least {error.least} {error.unit}; "
            f"a candidate of {sampler.steps} {sampler.method} steps takes {takes}"
        )
        if sampler.final_steps is not None:
            message += f", the final generation {last}"
        raise _refusal("budget-too-small", f"budget.{error.unit}", message) from None
