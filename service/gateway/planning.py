"""Plans of requests, and the budgets of searches that go on."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from sitsearch.service.gateway.problems import Conflict, FieldError, Invalid
from sitsearch.workers.jobs.base import Count, Schema
from sitsearch.workers.jobs.job import Extension, Job, Status
from sitsearch.workers.jobs.logged import log_bytes
from sitsearch.workers.jobs.offer import Offer, SamplerOffer
from sitsearch.workers.jobs.request import MAX_NFE, GenerateRequest
from sitsearch.workers.search.lessons.forecast import forecast
from sitsearch.workers.search.lessons.record import Learnt
from sitsearch.workers.search.runs.dry_run import Plan, make_plan
from sitsearch.workers.search.runs.plan import cap, reserved, sampling_of
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.start import start_run

#: Images that a verifier scores in the time of a gradient: a backward pass takes about twice as long as a forward.
GRADIENT = 3
#: Plans that are remembered.
PLANS = 256


class PlanView(Schema):
    """What a request would do; `seconds` is an estimate for an idle service, where its speed was measured."""

    plan: Plan
    request: GenerateRequest
    seconds: float | None


class ExtendRequest(Schema):
    """The body of `POST /jobs/{id}/extend`: the new budget in NFE, in all."""

    nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)]


def plan_view(request: GenerateRequest, offer: Offer, learnt: Learnt) -> PlanView:
    """The plan of an admitted request, with what finished searches let expect of it."""
    model = next(m for m in offer.models if m.name == request.model)
    method = _method(request, offer)
    plan = plan_of(request, method, tuple(model.samplers))
    verifiers = [v for v in offer.verifiers if v.name in request.verifier.names]
    if isinstance(run := start_run(request, method, model.samplers), SearchRun):
        expected = forecast(request, run.state.allowance, learnt, verifiers[0].range)
        explanation = (*plan.explanation, *expected.explanation)
        plan = plan.model_copy(update={"forecast": expected, "explanation": explanation})
    seconds = None
    if model.forwards_per_second:
        seconds = plan.forwards / model.forwards_per_second
        if speeds := [verifier.images_per_second for verifier in verifiers if verifier.images_per_second]:
            seconds += plan.candidates / min(speeds)  # members of an ensemble work at the same time
        guide = request.gradient
        if guide and (speed := next((v.images_per_second for v in offer.verifiers if v.name == guide.verifier), None)):
            seconds += GRADIENT * plan.gradients / speed
        seconds = round(seconds, 2)
    return PlanView(plan=plan, request=request, seconds=seconds)


def plan_of(request: GenerateRequest, method: SamplerOffer, methods: tuple[SamplerOffer, ...]) -> Plan:
    """The plan of an admitted request; of one that was planned lately, as it was."""
    return _planned(request.model_dump_json(), method, methods)


@lru_cache(maxsize=PLANS)
def _planned(text: str, method: SamplerOffer, methods: tuple[SamplerOffer, ...]) -> Plan:
    return make_plan(GenerateRequest.model_validate_json(text), method, methods)


async def check_log(request: GenerateRequest, offer: Offer, most: int) -> None:
    """Refuse a request whose round log could outgrow `most` MB.

    Raises:
        Invalid: it could; the message has the figure.
    """
    verifiers, nfe = len(request.verifier.names), request.budget.most_nfe(request.sampler.rows)
    if log_bytes(nfe, nfe, verifiers) <= most * 1_000_000:  # however the search divides it
        return
    model = next(m for m in offer.models if m.name == request.model)
    plan = await asyncio.to_thread(plan_of, request, _method(request, offer), tuple(model.samplers))
    size = log_bytes(plan.candidates, plan.rounds, verifiers) / 1_000_000
    if size > most:
        message = (
            f"about {plan.candidates:,} candidates in {plan.rounds:,} rounds would leave a log of {size:,.0f} MB, "
            f"at most {most} MB a job here: take more steps a candidate, larger rounds, or a smaller budget"
        )
        raise Invalid([FieldError(field="budget", message=message)], slug="log-too-large")


def extension_of(job: Job, nfe: int, offer: Offer, *, max_nfe: int) -> Extension | None:
    """What raises the job's budget to `nfe` in all; None if that is its budget already.

    Raises:
        Invalid: the budget would shrink, exceed `max_nfe`, or not buy what it takes to go on.
        Conflict: the job has not succeeded, so there is no finished search to go on from; or it filled a set by even
            parts, which has nothing to go on with.
    """
    now = cap(job.request) + sum(extension.nfe for extension in job.extensions)
    if nfe == now:
        return None
    if job.status is not Status.SUCCEEDED:
        raise Conflict(f"the job is {job.status}; only one that has succeeded can be extended", slug="not-succeeded")
    if job.request.condition.is_many and job.request.allocation == "uniform":
        message = (
            "a search over many conditions goes on only where `allocation` is adaptive: of an even share none is left"
        )
        raise Conflict(message, slug="not-extensible")
    needed = reserved(job.request, sampling_of(job.request, _method(job.request, offer)))
    finished = job.usage.nfe_finish  # what a search that ended early took of the budget that it goes on with
    for wrong, message in (
        (nfe < now, f"must be more than the {now} NFE that the search had"),
        (nfe > max_nfe, f"at most {max_nfe} NFE a job here"),
        (
            nfe < now + needed + finished,
            f"must be at least {now + needed + finished}: another final generation takes {needed}, and {finished} "
            "went into finishing what the search had begun",
        ),
    ):
        if wrong:
            raise Invalid([FieldError(field="nfe", message=message)], slug="budget-unsuitable")
    return Extension(after_round=job.progress.round, nfe=nfe - now)


def _method(request: GenerateRequest, offer: Offer) -> SamplerOffer:
    for model in offer.models:
        for method in model.samplers:
            if model.name == request.model and method.name == request.sampler.method:
                return method
    raise Conflict(f"model {request.model!r} with sampler {request.sampler.method!r} is not offered any more")
