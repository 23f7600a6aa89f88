"""What a client asks for: the body of `POST /generate`. Every model is frozen and refuses unknown fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sitsearch.workers.jobs.base import MAX_SEED, MAX_STEPS, PRIORITIES, Count, Real, Schema
from sitsearch.workers.jobs.guides import Gradient, GradientOptions
from sitsearch.workers.jobs.recipe import Recipe

MAX_NFE = 10_000_000
MAX_IMAGES = 64
#: A diverse result is chosen among so many finished candidates for each of its images, and among so many at most.
POOL_PER_IMAGE, MAX_POOL = 4, 64
#: Most images of a search over many conditions.
MAX_SET = 1024


def _short_form(key: str) -> BeforeValidator:
    """Accept the bare name for an object that is known by one: `"random"` for `{"algorithm": "random"}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


ClassName = Annotated[str, Field(max_length=200)] | Count


Prompt = Annotated[str, Field(min_length=1, max_length=2000)]


class OneCondition(Schema):
    """One of many things to draw: a class by name or index, a prompt, or both."""

    class_: ClassName | None = Field(None, alias="class")
    prompt: Prompt | None = None

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _some(self) -> OneCondition:
        if self.class_ is None and self.prompt is None:
            raise ValueError("needs `class` (name or index), `prompt`, or both")
        return self


class Condition(Schema):
    """What to draw: a class by name or index, a prompt, or both; or `many` such in one job, an image of each.

    `classes` and `prompts` are short forms of `many`, for entries that have only the one or only the other.
    """

    class_: ClassName | None = Field(None, alias="class")
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=MAX_SET)] | None = None
    prompt: Prompt | None = None
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=MAX_SET)] | None = None
    many: Annotated[tuple[OneCondition, ...], Field(min_length=1, max_length=MAX_SET)] | None = None

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _one_of_them(self) -> Condition:
        alone = self.class_ is not None or self.prompt is not None
        forms = alone + sum(form is not None for form in (self.classes, self.prompts, self.many))
        if not forms:
            raise ValueError("needs `class` (name or index) or `prompt`; or, for many, `classes`, `prompts` or `many`")
        if forms > 1:
            raise ValueError("takes one of: a `class` and a `prompt`, `classes`, `prompts`, `many`")
        return self

    @property
    def is_many(self) -> bool:
        """It is a list, if only of one: the request is for a set of images."""
        return self.classes is not None or self.prompts is not None or self.many is not None

    @property
    def each(self) -> tuple[OneCondition, ...]:
        """The conditions one by one, in the order in which candidates count them."""
        if self.classes is not None:
            return tuple(OneCondition(class_=one) for one in self.classes)
        if self.prompts is not None:
            return tuple(OneCondition(prompt=one) for one in self.prompts)
        return self.many or (OneCondition(class_=self.class_, prompt=self.prompt),)

    def field(self, place: int, part: Literal["class", "prompt"]) -> str:
        """The request's field that says `part` of condition `place`, dotted, for refusals."""
        if self.many is not None:
            return f"condition.many.{place}.{part}"
        if self.classes is not None or self.prompts is not None:
            return f"condition.{'prompts' if self.classes is None else 'classes'}.{place}"
        return f"condition.{part}"


class Budget(Schema):
    """The hard cap: at least one of `nfe` and `forwards`. A guided evaluation is one NFE and two forwards.

    `gradients` of a verifier (see `GuideChoice`) are counted apart, and have a cap of their own.
    """

    nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)] | None = None
    forwards: Annotated[Count, Field(ge=1, le=2 * MAX_NFE)] | None = None
    gradients: Annotated[Count, Field(ge=0, le=MAX_NFE)] | None = None
    seconds: Annotated[Real, Field(gt=0, le=86_400)] | None = None

    @model_validator(mode="after")
    def _some_cap(self) -> Budget:
        if self.nfe is None and self.forwards is None:
            raise ValueError("needs `nfe` or `forwards`")
        return self

    def most_nfe(self, rows: int) -> int:
        """The whole budget in NFE, of `rows` forwards each."""
        caps = (self.nfe, None if self.forwards is None else self.forwards // rows)
        return min(cap for cap in caps if cap is not None)


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
    """The algorithm; every other field is one of its own options, checked against its schema.

    `preset` says what the options are that are left out: by `budget`, what the budget buys and was measured to be
    best here; by `paper`, what the experiments of the algorithm's paper took.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    algorithm: Annotated[str, Field(max_length=100)] = "auto"
    preset: Literal["budget", "paper"] = "budget"

    @property
    def options(self) -> dict[str, Any]:
        """The fields that belong to the algorithm."""
        return dict(self.__pydantic_extra__ or {})


class SamplerChoice(Schema):
    """How one candidate is sampled; the fields are those of `sitsearch.models.samplers.Spec`, and guidance.

    `final_steps` re-generates the winners at that many steps. `path` names an interpolant to sample on in place of the
    model's own: x on one path is a rescaled x on the other at the time of equal signal-to-noise ratio. A stochastic
    method's last step, which adds no noise, is the last of its grid, or begins `last_step_size` before t = 1. `inner`
    and `rho` are of `glass`: evaluations of a step, and how much of the noise stays (none: as much as by DDPM).
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
    last_step_size: Annotated[Real, Field(gt=0, lt=1)] | None = None
    inner: Annotated[Count, Field(ge=1, le=64)] = 2
    rho: Annotated[Real, Field(ge=0, le=1)] | None = None
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


class GuideChoice(GradientOptions):
    """Guidance of every trajectory by a verifier's gradient; `auto` guides some, where it pays.

    `verifier` may be left to the one that selects, or the first member of an ensemble that can. `unaudited` says that
    no auditor need look at the winners, though such a search may exploit the verifier's errors. What is not `enabled`
    is not guided, whatever the algorithm would do: `"off"` for short.
    """

    enabled: StrictBool = True
    verifier: VerifierName | None = None
    unaudited: StrictBool = False


def _guide(value: Any) -> Any:
    """Accept the bare name of the verifier, and `off`."""
    if isinstance(value, str):
        return {"enabled": False} if value == "off" else {"verifier": value}
    return value


class Target(Schema):
    """A score to search for; what it is expected to take is told with this `confidence`."""

    score: Real
    confidence: Annotated[Real, Field(gt=0, lt=1)] = 0.95


class StartFrom(Schema):
    """The noise that a search begins with: that of a `candidate` of another `job`, or of a `recipe`.

    Of a recipe only what lies at t = 0 is taken. The gateway finds the recipe of a candidate.
    """

    job: Annotated[str, Field(max_length=100)] | None = None
    candidate: Annotated[str, Field(max_length=100)] | None = None
    recipe: Recipe | None = None

    @field_validator("recipe")
    @classmethod
    def _at_noise(cls, recipe: Recipe | None) -> Recipe | None:
        return None if recipe is None else recipe.noise

    @model_validator(mode="after")
    def _whole(self) -> StartFrom:
        if (self.job is None) != (self.candidate is None):
            raise ValueError("`job` and `candidate` go together")
        if self.job is None and self.recipe is None:
            raise ValueError("needs a `job` and its `candidate`, or a `recipe`")
        return self


class StopRules(Schema):
    """End before the budget is spent: at a score, or after so many NFE without a better one.

    `target` ends a search as `score` does, and shows how far it is from there. `audited` ends it once an auditor thinks
    less of the newest best image than of an earlier one, beyond chance.
    """

    score: Real | None = None
    target: Target | None = None
    patience_nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)] | None = None
    audited: StrictBool = False


class GenerateRequest(Schema):
    """The body of `POST /generate`.

    Of many conditions, `allocation` shares the budget out evenly, or by what each is expected to gain from more.
    `guide` has trajectories follow a verifier's gradient; `off` has none, and left open it is the algorithm's choice.
    `diversity` is how much it counts that several images differ: 0 gives the best by score, 1 the most different ones.
    `start_from` names the first noise of the search; all others are its own.
    `priority` is the job's share of the samplers in relation to the shares of other jobs.
    """

    model: Annotated[str, Field(max_length=100)] = "glyphs"
    condition: Condition
    per_condition: Annotated[Count, Field(ge=1, le=MAX_SET)] = 1
    allocation: Literal["uniform", "adaptive"] = "uniform"
    num_images: Annotated[Count, Field(ge=1, le=MAX_IMAGES)] = 1
    diversity: Annotated[Real, Field(ge=0, le=1)] = 0.0
    seed: Annotated[Count, Field(ge=0, le=MAX_SEED)] = 0
    budget: Budget
    verifier: Annotated[VerifierChoice, _short_form("name")]
    auditors: Annotated[tuple[VerifierName, ...], Field(max_length=8)] = ()
    search: Annotated[SearchChoice, _short_form("algorithm")] = SearchChoice()
    sampler: SamplerChoice = SamplerChoice()
    guide: Annotated[GuideChoice | None, BeforeValidator(_guide)] = None
    stop: StopRules = StopRules()
    start_from: StartFrom | None = Field(None, exclude_if=lambda start: start is None)
    priority: Annotated[Real, Field(ge=PRIORITIES[0], le=PRIORITIES[1])] = 1.0

    @field_validator("per_condition", "allocation")
    @classmethod
    def _of_many(cls, value: Any, info: ValidationInfo) -> Any:
        condition = info.data.get("condition")  # absent where it was refused itself
        if value not in (1, "uniform") and condition is not None and not condition.is_many:
            message = "goes with many conditions (`condition.classes`, `prompts` or `many`)"
            raise ValueError(f"`{info.field_name}` {message}; for more images of one, see `num_images`")
        return value

    @field_validator("diversity")
    @classmethod
    def _of_several(cls, value: float, info: ValidationInfo) -> float:
        condition, images = info.data.get("condition"), info.data.get("num_images")
        if value and condition is not None and condition.is_many:
            raise ValueError("`diversity` goes with one condition; many may be 0 only")
        if value and images is not None and not 2 <= images < MAX_POOL:
            raise ValueError(
                f"`diversity` goes with `num_images` from 2 to {MAX_POOL - 1}, not {images}: so many differ from one "
                f"another, and they are chosen among at most {MAX_POOL}"
            )
        return value

    @property
    def gradient(self) -> Gradient | None:
        """What guides: the guide's verifier must be filled in; None where nothing does."""
        guide = self.guide
        if guide is None or not guide.enabled or guide.verifier is None:
            return None
        return Gradient.model_validate(guide.model_dump(exclude={"enabled", "unaudited"}))

    @property
    def verifiers(self) -> tuple[tuple[str, str], ...]:
        """The verifiers that are named, each as `(field that names it, name)`."""
        members = self.verifier.members
        named = [("verifier.name", self.verifier.name)] if members is None else []
        named += [(f"verifier.members.{place}", name) for place, name in enumerate(members or ())]
        named += [(f"auditors.{place}", name) for place, name in enumerate(self.auditors)]
        return (*named, ("guide.verifier", guide.verifier)) if (guide := self.gradient) else tuple(named)

    @field_validator("start_from")
    @classmethod
    def _of_one(cls, value: StartFrom | None, info: ValidationInfo) -> StartFrom | None:
        condition = info.data.get("condition")
        if value is not None and condition is not None and condition.is_many:
            raise ValueError("goes with one condition")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> GenerateRequest:
        if len(set(self.auditors)) != len(self.auditors) or set(self.auditors) & set(self.verifier.names):
            raise ValueError("`auditors` must differ from one another and from what selects")
        if self.gradient is not None and self.gradient.verifier in self.auditors:
            raise ValueError("`auditors` must differ from the verifier that guides")
        for rule, given in (("score", self.stop.score), ("target", self.stop.target)):
            if given is not None and self.verifier.members is not None and self.verifier.rule != "gate":
                raise ValueError(f"`stop.{rule}` does not go with rule {self.verifier.rule!r}: its scores are relative")
        images = len(self.condition.each) * self.per_condition
        if images > MAX_SET:
            raise ValueError(f"conditions times `per_condition` may be at most {MAX_SET} images, not {images}")
        return self
