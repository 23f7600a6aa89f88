"""What becomes of a request: candidates, rounds, progress, result, and the job's record that holds them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from sitsearch.workers.jobs.base import Count, Schema
from sitsearch.workers.jobs.fingerprint import Origin
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import MAX_NFE, GenerateRequest

#: What a candidate was made for: `search`, what the search proposed; `finish`, what a search that ended early owed: its
#: best previews carried on to t = 1, and the images that were missing; `final`, the winners at `final_steps`.
Phase = Literal["search", "finish", "final"]
#: What ended a search: its budget in NFE or in gradients, a stop rule, the time, or what ended its job.
StopReason = Literal["budget", "gradients", "score", "target", "patience", "audited", "seconds", "canceled", "failed"]


class Candidate(Schema):
    """One evaluated trajectory: its recipe, what it cost and how it scored.

    A candidate whose recipe ends before t = 1 was scored on its data prediction. `condition` counts the request's
    conditions, `gradients` those of a verifier that guided it. An `invalid` one has a score that is no number, or was
    made of such: it is never selected, and the worst score of its round stands in for its own.
    """

    id: str
    recipe: Recipe
    nfe: int
    forwards: int
    scores: dict[str, float]
    phase: Phase = "search"
    condition: int = 0
    gradients: int = Field(0, exclude_if=lambda gradients: not gradients)
    invalid: bool = Field(False, exclude_if=lambda invalid: not invalid)


class Choice(Schema):
    """How a diverse result was chosen, see `sitsearch.workers.search.runs.diversity`.

    Attributes:
        ids: the candidates that were chosen, before a final generation; best first.
        ranks: their ranks by score among all that they were chosen from; the first is 0, the best.
        among: how many there were.
        distance: the mean distance between two of the chosen, where the mean over all pairs is 1; 0 if all are alike.
        distance_of_top: the same of as many that are best by score alone.
    """

    ids: tuple[str, ...]
    ranks: tuple[int, ...]
    among: int
    distance: float
    distance_of_top: float


class Round(Schema):
    """One ask and its tell, as it stands in the round log; `audits` are of the best candidate so far.

    `baseline` is what the auditors say of some of the round's candidates, with which winners are compared.
    A diverse result's `choice` has an entry of its own, without candidates. `origin` says what made the round, unless
    it is what made the round before.
    """

    round: Annotated[int, Field(ge=0)]
    candidates: tuple[Candidate, ...]
    audits: dict[str, float] | None = None
    baseline: tuple[dict[str, float], ...] = Field((), exclude_if=lambda baseline: not baseline)
    choice: Choice | None = Field(None, exclude_if=lambda choice: choice is None)
    origin: Origin | None = Field(None, exclude_if=lambda origin: origin is None)


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
    gradients: int = Field(0, exclude_if=lambda gradients: not gradients)
    score: float
    scores: dict[str, float] | None = None


class TargetProgress(Schema):
    """How far a search is from `stop.target` after a round, see `sitsearch.workers.search.runs.target`.

    Attributes:
        score, confidence: as asked for.
        reached: a finished image has the score.
        sample: what the estimate is made of: `random`, independent candidates from plain noise; `finished`, all
            finished images, where there are too few of those.
        seen: how many of them.
        probability: that one candidate reaches the score; None of fewer than 8, and where it is beyond all measure.
        nfe_expected, nfe_confident: NFE that are still needed, in the mean and with `confidence`; None where there is
            no `probability`, and where they are more than any budget may have.
        nfe_left: NFE that the search has left. What is needed beyond these is more than the budget.
        probability_left: that these are enough.
    """

    score: float
    confidence: float
    reached: bool
    sample: Literal["random", "finished"]
    seen: int
    probability: float | None = None
    nfe_expected: int | None = None
    nfe_confident: int | None = None
    nfe_left: int
    probability_left: float | None = None


class Progress(Schema):
    """How far a job has come; `target` is there where the request names one.

    The curve has a point for each round, but for those between the first and the last at which nothing changed.
    """

    nfe_spent: int = 0
    nfe_budget: int | None = None
    forwards_spent: int = 0
    forwards_budget: int | None = None
    gradients_spent: int = 0
    gradients_budget: int | None = None
    round: int = 0
    best_score: float | None = None
    target: TargetProgress | None = None
    curve: tuple[CurvePoint, ...] = ()


class Usage(Schema):
    """What was spent, by `Phase`. `wasted` was computed again after a fault and is not part of the budget.

    `gradients` are those of a verifier that guided candidates: a forward and a backward pass of it each, and none of
    the model's network.
    """

    nfe_search: int = 0
    nfe_finish: int = 0
    nfe_final: int = 0
    nfe_wasted: int = 0
    forwards_search: int = 0
    forwards_finish: int = 0
    forwards_final: int = 0
    forwards_wasted: int = 0
    gradients_search: int = 0
    gradients_finish: int = 0
    gradients_final: int = 0
    gradients_wasted: int = 0


class Estimate(Schema):
    """What the winner's score is worth, see `sitsearch.workers.search.runs.estimates`.

    Attributes:
        score, low, high: the estimate, and an interval at the level `confidence`.
        method: `another_seed`, the best score that the same search would find from another seed; `left_out`, how
            members of an ensemble judge winners that the others chose, in standard deviations above their mean;
            `audited`, what auditors say of the winner, in standard deviations above the first candidates' mean.
    """

    score: float
    low: float
    high: float
    confidence: float = 0.95
    method: Literal["another_seed", "left_out", "audited"]


class ResultImage(Schema):
    """One of the best candidates, best first.

    Attributes:
        rank: counts from 0; of many conditions, the slots.
        audits: what the auditors say of it.
        score: what it was selected by.
        nfe: what its condition took in all, of many.
        finished: it is a sample at t = 1; if not, a data prediction on the way there.
        estimate: of the winner: its score is the largest of many. It is of the search's own images, before a final
            generation. None where nothing honest can be said.
    """

    rank: int
    audits: dict[str, float] | None = None
    score: float
    candidate: Candidate
    nfe: int | None = None
    finished: bool = True
    estimate: Estimate | None = None


class LogDigest(Schema):
    """The tree hash (`sitsearch.workers.jobs.merkle`) of a job's first `rounds` logged rounds."""

    root: str
    rounds: int


class Result(Schema):
    """The answer of a finished search.

    Attributes:
        images: best first; of a search over many conditions, by slot.
        candidates: how many were scored, the final generation not counted.
        invalid: how many of them could not be, see `Candidate`.
        hacking: auditors that fell while the selecting score rose (`sitsearch.workers.search.runs.selection.hacking`),
            and those to which the winner lies below the first candidates, beyond chance; None without auditors.
        stopped_by: what ended it.
        warnings: where the images are not what was asked for, in sentences.
        choice: how a diverse result was chosen; None where the images are the best by score.
        origins: what made the rounds, in the order in which it came to be; one unless something changed on the way.
        log: the rounds that led to it.
    """

    images: tuple[ResultImage, ...]
    candidates: int
    invalid: int = Field(0, exclude_if=lambda invalid: not invalid)
    hacking: tuple[str, ...] | None = None
    stopped_by: StopReason
    warnings: tuple[str, ...] = ()
    choice: Choice | None = None
    origins: tuple[Origin, ...] = ()
    log: LogDigest | None = None


class JobError(Schema):
    """Why a job failed: a stable code and a sentence for people."""

    code: str
    detail: str


class Extension(Schema):
    """More budget for a search that had ended, granted once `after_round` rounds were told."""

    after_round: int
    nfe: Annotated[Count, Field(ge=1, le=MAX_NFE)]


class Job(Schema):
    """The record of a job, as the store keeps it. Times are Unix seconds; `note` says what a running one waits for."""

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
    note: str | None = None
