"""How a budget becomes candidates: the planner of the paper's axes of compute."""

from __future__ import annotations

from workers.errors import BudgetTooSmall
from workers.jobs.schemas import GenerateRequest, SamplerChoice, Schema
from workers.search.base import Allowance


class Cost(Schema):
    """What one trajectory costs: field evaluations, and network rows (two for a guided evaluation)."""

    nfe: int
    forwards: int

    def __mul__(self, count: int) -> Cost:
        return Cost(nfe=self.nfe * count, forwards=self.forwards * count)


class Plan(Schema):
    """How a request's budget is spent: `candidates` in search, then `finals` re-generated winners."""

    candidate: Cost
    candidates: int
    final: Cost | None
    finals: int


def trajectory_cost(steps: int, evaluations_per_step: int, guidance: float) -> Cost:
    """Cost of one trajectory of `steps` steps; guidance 1 needs no unconditional row."""
    nfe = steps * evaluations_per_step
    return Cost(nfe=nfe, forwards=nfe * (2 if guidance > 1 else 1))


def make_plan(request: GenerateRequest, evaluations_per_step: int) -> Plan:
    """The most candidates that fit in the budget once the final generation is reserved.

    Raises:
        BudgetTooSmall: not even `num_images` candidates fit.
    """
    sampler: SamplerChoice = request.sampler
    candidate = trajectory_cost(sampler.steps, evaluations_per_step, sampler.guidance)
    final, finals = None, 0
    if sampler.final_steps is not None:
        final, finals = trajectory_cost(sampler.final_steps, evaluations_per_step, sampler.guidance), request.num_images
    reserved = final * finals if final else Cost(nfe=0, forwards=0)
    least = candidate * request.num_images
    fits = []
    for unit in ("nfe", "forwards"):
        budget = getattr(request.budget, unit)
        if budget is None:
            continue
        needed = getattr(least, unit) + getattr(reserved, unit)
        if budget < needed:
            raise BudgetTooSmall(unit, budget, needed)
        fits.append((budget - getattr(reserved, unit)) // getattr(candidate, unit))
    return Plan(candidate=candidate, candidates=min(fits), final=final, finals=finals)


def allowance(request: GenerateRequest, plan: Plan) -> Allowance:
    """What the search itself may spend under `plan`."""
    return Allowance(candidates=plan.candidates, steps=request.sampler.steps, seed=request.seed)
