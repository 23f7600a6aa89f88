"""The words of a job on the wire and in Redis. Every model is frozen and refuses unknown fields."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from sitsearch.workers.jobs.base import MAX_SEED, MAX_STEPS, PRIORITIES, Count, Real, Schema
from sitsearch.workers.jobs.recipe import Recipe

MAX_NFE = 10_000_000
MAX_IMAGES = 64
#: Most images of a search over many conditions.
MAX_SET = 1024


def _short_form(key: str) -> BeforeValidator:
    """Accept the bare name for an object that is known by one: `"random"` for `{"algorithm": "random"}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


# --- the request -------------------------------------------------------------------------------------------------


ClassName = Annotated[str, Field(max_length=200)] | Count


class Condition(Schema):
    """What to draw: a class, by name or index, or a prompt; or many classes, for a set of images."""

    class_: ClassName | None = Field(None, alias="class")
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=MAX_SET)] | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=2000)] | None = None

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _one_of_them(self) -> Condition:
        if self.class_ is None and self.prompt is None and self.classes is None:
            raise ValueError("needs `class` (name or index), `classes` or `prompt`")
        if self.classes is not None and (self.class_ is not None or self.prompt is not None):
            raise ValueError("takes `classes`, or a `class` and a `prompt`, not both")
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


VerifierName = Annotated[str, Field(min_length=1, max_length=100)]
ENSEMBLE = "ensemble"


class VerifierChoice(Schema):
    """The verifier that selects: one by name, or an `ensemble` of `members`, by a rule of
    `sitsearch.workers.search.runs.selection`.

    `weights` go with the rule `zscore`, one a member; `least` with `gate`, one for every member but the last.
    """

    name: VerifierName
    members: Annotated[tuple[VerifierName, ...], Field(min_length=2, max_length=8)] | None = None
    rule: Literal["rank", "zscore", "gate"] = "rank"
    weights: tuple[Annotated[Real, Field(gt=0)], ...] | None = None
    least: tuple[Real, ...] | None = None

    @model_validator(mode="after")
    def _whole(self) -> VerifierChoice:
        if (self.name == ENSEMBLE) != (self.members is not None):
            raise ValueError(f"`members` go with the name {ENSEMBLE!r}, and it needs them")
        members = self.members or ()
        if len(set(members)) != len(members):
            raise ValueError("`members` must differ")
        if self.weights is not None and (self.rule != "zscore" or len(self.weights) != len(members)):
            raise ValueError("`weights` go with the rule `zscore`, one for each member")
        wanted = len(members) - 1 if self.members and self.rule == "gate" else None
        if (len(self.least) if self.least is not None else None) != wanted:
            raise ValueError("`least` goes with the rule `gate`, which needs one for every member but the last")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The verifiers that score."""
        return self.members or (self.name,)


class SearchChoice(BaseModel):
    """The algorithm; every other field is one of its own options, checked against its schema."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    algorithm: Annotated[str, Field(max_length=100)] = "random"

    @property
    def options(self) -> dict[str, Any]:
        """The fields that belong to the algorithm."""
        return dict(self.__pydantic_extra__ or {})


class SamplerChoice(Schema):
    """How one candidate is sampled; the fields are those of `sitsearch.models.samplers.Spec`, and guidance.

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
    """The body of `POST /generate`.

    `priority` is the job's share of the samplers in relation to the shares of other jobs.
    """

    model: Annotated[str, Field(max_length=100)] = "glyphs"
    condition: Condition
    per_condition: Annotated[Count, Field(ge=1, le=MAX_SET)] = 1
    num_images: Annotated[Count, Field(ge=1, le=MAX_IMAGES)] = 1
    seed: Annotated[Count, Field(ge=0, le=MAX_SEED)] = 0
    budget: Budget
    verifier: Annotated[VerifierChoice, _short_form("name")]
    auditors: Annotated[tuple[VerifierName, ...], Field(max_length=8)] = ()
    search: Annotated[SearchChoice, _short_form("algorithm")] = SearchChoice()
    sampler: SamplerChoice = SamplerChoice()
    stop: StopRules = StopRules()
    priority: Annotated[Real, Field(ge=PRIORITIES[0], le=PRIORITIES[1])] = 1.0

    @model_validator(mode="after")
    def _goes_together(self) -> GenerateRequest:
        if len(set(self.auditors)) != len(self.auditors) or set(self.auditors) & set(self.verifier.names):
            raise ValueError("`auditors` must differ from one another and from what selects")
        if self.stop.score is not None and self.verifier.members is not None and self.verifier.rule != "gate":
            raise ValueError(f"`stop.score` does not go with rule {self.verifier.rule!r}: its scores are relative")
        images = len(self.condition.classes or ()) * self.per_condition
        if images > MAX_SET:
            raise ValueError(f"`classes` times `per_condition` may be at most {MAX_SET} images, not {images}")
        if self.condition.classes is None and self.per_condition != 1:
            raise ValueError("`per_condition` goes with `condition.classes`; for one condition, see `num_images`")
        return self


# --- search ------------------------------------------------------------------------------------------------------


class Candidate(Schema):
    """One evaluated trajectory: its recipe, what it cost and how it scored.

    `phase` is `search` for candidates the search proposed and `final` for the re-generated winners. A candidate whose
    recipe ends before t = 1 was scored on its data prediction. `condition` counts the request's `classes`.
    """

    id: str
    recipe: Recipe
    nfe: int
    forwards: int
    scores: dict[str, float]
    phase: Literal["search", "final"] = "search"
    condition: int = 0


class Round(Schema):
    """One ask and its tell, as it stands in the round log; `audits` are of the best candidate so far."""

    round: Annotated[int, Field(ge=0)]
    candidates: tuple[Candidate, ...]
    audits: dict[str, float] | None = None


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
    """Best score after `nfe` evaluations; `scores` of the members and auditors, where there are any."""

    nfe: int
    forwards: int
    score: float
    scores: dict[str, float] | None = None


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
    """One of the best candidates, best first; `rank` counts from 0, `audits` are what the auditors say of it."""

    rank: int
    audits: dict[str, float] | None = None
    score: float
    candidate: Candidate


class Result(Schema):
    """The answer of a finished search.

    Attributes:
        images: best first; of a search over many conditions, by slot.
        candidates: how many were scored, the final generation not counted.
        hacking: auditors that fell while the selecting score rose (`sitsearch.workers.search.runs.selection.hacking`);
            None without auditors.
        stopped_by: what ended it.
    """

    images: tuple[ResultImage, ...]
    candidates: int
    hacking: tuple[str, ...] | None = None
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
    class_indices: tuple[int, ...] = ()
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

    `forwards_per_second` was measured when the sampler came up: full batches, of one replica. That warm-up took
    `warm_up_seconds`, compilation included, and `warm_up_forwards` rows, which are counted nowhere else.
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
    warm_up_seconds: float | None = None
    warm_up_forwards: int | None = None


class VerifierOffer(Schema):
    """A verifier that can select here, which models' images it can score, and how fast.

    One of `sets` judges a candidate by the set of images that it would join; `models` empty means all. The schema tells
    what a card may set; requests set none of it.
    """

    name: str
    title: str
    needs: tuple[Literal["class", "prompt", "preview"], ...]
    models: tuple[str, ...]
    range: tuple[float | None, float | None] = (None, None)
    images_per_second: float | None = None
    sets: bool = False
    options_schema: dict[str, Any] | None = None


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
