"""The words of a job on the wire and in Redis. Every model is frozen and refuses unknown fields."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from workers.jobs.base import MAX_SEED, MAX_STEPS, Count, Real, Schema
from workers.jobs.recipe import Recipe

MAX_NFE = 10_000_000
MAX_IMAGES = 64


def _short_form(key: str) -> BeforeValidator:
    """Accept the bare name for an object that is known by one: `"random"` for `{"algorithm": "random"}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


# --- the request -------------------------------------------------------------------------------------------------


class Condition(Schema):
    """What to draw: a class, by name or index, or a prompt."""

    class_: Annotated[str, Field(max_length=200)] | Count | None = Field(None, alias="class")
    prompt: Annotated[str, Field(min_length=1, max_length=2000)] | None = None

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _one_of_them(self) -> Condition:
        if self.class_ is None and self.prompt is None:
            raise ValueError("needs `class` (name or index) or `prompt`")
        return self


class Budget(Schema):
    """The hard cap: at least one of `nfe` and `forwards`. A guided evaluation is one NFE and two forwards."""

    nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)] | None = None
    forwards: Annotated[Count, Field(ge=1, le=2 * MAX_NFE)] | None = None
    seconds: Annotated[Real, Field(gt=0, le=86_400)] | None = None

    @model_validator(mode="after")
    def _some_cap(self) -> Budget:
        if self.nfe is None and self.forwards is None:
            raise ValueError("needs `nfe` or `forwards`")
        return self


class VerifierChoice(Schema):
    """The verifier that selects."""

    name: Annotated[str, Field(max_length=100)]


class SearchChoice(BaseModel):
    """The algorithm; every other field is one of its own options, checked against its schema."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    algorithm: Annotated[str, Field(max_length=100)] = "random"

    @property
    def options(self) -> dict[str, Any]:
        """The fields that belong to the algorithm."""
        return dict(self.__pydantic_extra__ or {})


class SamplerChoice(Schema):
    """How one candidate is sampled; the fields are those of `models.samplers.Spec`, and guidance.

    `final_steps` re-generates the winners at that many steps. `path` names an interpolant to sample on in place of the
    model's own: x on one path is a rescaled x on the other at the time of equal signal-to-noise ratio.
    """

    method: Annotated[str, Field(max_length=50)] = "heun"
    steps: Annotated[Count, Field(ge=1, le=MAX_STEPS)] = 20
    guidance: Annotated[Real, Field(ge=1.0, le=100.0)] = 1.5
    guidance_interval: tuple[Annotated[Real, Field(ge=0, le=1)], Annotated[Real, Field(ge=0, le=1)]] = (0.0, 1.0)
    final_steps: Annotated[Count, Field(ge=1, le=MAX_STEPS)] | None = None
    shift: Annotated[Real, Field(gt=0, le=100)] = 1.0
    path: Literal["Linear", "GVP", "VP"] | None = None
    diffusion: Literal["constant", "SBDM", "sigma", "linear", "decreasing", "increasing-decreasing"] = "sigma"
    norm: Annotated[Real, Field(ge=0, le=100)] = 1.0
    last_step: Literal["Mean", "Tweedie", "Euler"] | None = "Mean"
    last_step_size: Annotated[Real, Field(gt=0, lt=1)] = 0.04
    rtol: Annotated[Real, Field(ge=0, le=1)] = 1e-3
    atol: Annotated[Real, Field(gt=0, le=1)] = 1e-6

    @model_validator(mode="after")
    def _in_order(self) -> SamplerChoice:
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError("`guidance_interval` must be in order: [from, to], t = 0 being noise")
        return self

    @property
    def rows(self) -> int:
        """Network rows of one evaluation, at most."""
        return 2 if self.guidance != 1 else 1


class StopRules(Schema):
    """End before the budget is spent: at a score, or after so many NFE without a better one."""

    score: Real | None = None
    patience_nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)] | None = None


class GenerateRequest(Schema):
    """The body of `POST /generate`."""

    model: Annotated[str, Field(max_length=100)] = "glyphs"
    condition: Condition
    num_images: Annotated[Count, Field(ge=1, le=MAX_IMAGES)] = 1
    seed: Annotated[Count, Field(ge=0, le=MAX_SEED)] = 0
    budget: Budget
    verifier: Annotated[VerifierChoice, _short_form("name")]
    search: Annotated[SearchChoice, _short_form("algorithm")] = SearchChoice()
    sampler: SamplerChoice = SamplerChoice()
    stop: StopRules = StopRules()


# --- search ------------------------------------------------------------------------------------------------------


class Candidate(Schema):
    """One evaluated trajectory: its recipe, what it cost and how it scored.

    `phase` is `search` for candidates the search proposed and `final` for the re-generated winners. A candidate whose
    recipe ends before t = 1 was scored on its data prediction.
    """

    id: str
    recipe: Recipe
    nfe: int
    forwards: int
    scores: dict[str, float]
    phase: Literal["search", "final"] = "search"


class Round(Schema):
    """One ask and its tell, as it stands in the round log."""

    round: Annotated[int, Field(ge=0)]
    candidates: tuple[Candidate, ...]


# --- the job -----------------------------------------------------------------------------------------------------


class Status(StrEnum):
    """Where a job stands; the last three are terminal and sticky."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """No further change of status is possible."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


class CurvePoint(Schema):
    """Best score after `nfe` evaluations."""

    nfe: int
    forwards: int
    score: float


class Progress(Schema):
    """How far a job has come; the curve has one point a round."""

    nfe_spent: int = 0
    nfe_budget: int | None = None
    forwards_spent: int = 0
    forwards_budget: int | None = None
    round: int = 0
    best_score: float | None = None
    curve: tuple[CurvePoint, ...] = ()


class Usage(Schema):
    """What was spent, by phase. `wasted` was computed again after a fault and is not part of the budget."""

    nfe_search: int = 0
    nfe_final: int = 0
    nfe_wasted: int = 0
    forwards_search: int = 0
    forwards_final: int = 0
    forwards_wasted: int = 0


class ResultImage(Schema):
    """One of the best candidates, best first; `rank` counts from 0."""

    rank: int
    score: float
    candidate: Candidate


class Result(Schema):
    """The answer of a finished search."""

    images: tuple[ResultImage, ...]
    candidates: int
    stopped_by: Literal["budget", "score", "patience", "seconds"]


class JobError(Schema):
    """Why a job failed: a stable code and a sentence for people."""

    code: str
    detail: str


class Extension(Schema):
    """More budget for a search that had ended, granted once `after_round` rounds were told."""

    after_round: int
    nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)]


class Job(Schema):
    """The record of a job, as the store keeps it. Times are Unix seconds."""

    id: str
    request: GenerateRequest
    class_index: int | None = None
    extensions: tuple[Extension, ...] = ()
    status: Status = Status.QUEUED
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    progress: Progress = Progress()
    usage: Usage = Usage()
    result: Result | None = None
    error: JobError | None = None


# --- what a deployment offers ------------------------------------------------------------------------------------


class SamplerOffer(Schema):
    """A sampling method and what it costs.

    Attributes:
        evaluations_per_step: field evaluations of one step (of one attempt, if adaptive).
        stochastic: it draws noise on the way.
        adaptive: it chooses its steps itself, and `steps` is the most attempts that it makes.
        noise_first: a step's first evaluation lies at a noised state, so that one made at the state itself is no use.
    """

    name: str
    evaluations_per_step: int
    stochastic: bool = False
    adaptive: bool = False
    noise_first: bool = False


class ModelOffer(Schema):
    """A model that can be sampled here; `template` makes a text of a class name, for verifiers that read text.

    `forwards_per_second` was measured when the sampler came up: full batches, of one replica.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    image_size: int
    parameters: int
    macs_per_forward: int
    samplers: tuple[SamplerOffer, ...]
    default_sampler: SamplerChoice
    license: str
    template: str | None = None
    forwards_per_second: float | None = None


class VerifierOffer(Schema):
    """A verifier that can select here, which models' images it can score, and how fast."""

    name: str
    title: str
    needs: tuple[Literal["class", "prompt"], ...]
    models: tuple[str, ...]
    range: tuple[float | None, float | None] = (None, None)
    images_per_second: float | None = None


class AlgorithmOffer(Schema):
    """A search algorithm with the JSON schema of its options; a `stochastic` one needs an SDE sampler."""

    name: str
    title: str
    reference: str
    stochastic: bool = False
    options_schema: dict[str, Any]


class Offer(Schema):
    """All that a deployment offers; published to Redis by the workers and read by the gateway."""

    models: tuple[ModelOffer, ...]
    verifiers: tuple[VerifierOffer, ...]
    algorithms: tuple[AlgorithmOffer, ...]
    deterministic: StrictBool
