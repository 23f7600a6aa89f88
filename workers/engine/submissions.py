"""What was submitted to the engine, until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sitsearch.workers.engine.cohort import Cohort
from sitsearch.workers.engine.references import Table
from sitsearch.workers.engine.trajectory import Sample


@dataclass(frozen=True)
class Done:
    """A submission that has ended.

    Attributes:
        ticket: that `Engine.submit` gave for it.
        made: its samples in the order of the orders; none if it failed.
        error: why it failed.
    """

    ticket: int
    made: tuple[Sample, ...]
    error: Exception | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples; raises `error` if there is one."""
        if self.error is not None:
            raise self.error
        return self.made


@dataclass
class Submission:
    """A submission under way.

    Attributes:
        job, work, priority: see `Scheduler.submit`.
        cohorts: those that are left.
        samples: by the places of the orders; None where they are not made yet.
        tables: the references of its orders, see `tables_of`.
        before: tickets of the submissions that make lost references again: its cohorts wait for them.
        again: NFE, forwards and gradients that these took.
    """

    job: str
    work: float
    priority: float | None
    cohorts: dict[Cohort, None]
    samples: list[Sample | None]
    tables: dict[int, Table]
    before: dict[int, Table] = field(default_factory=dict)
    again: tuple[int, int, int] = (0, 0, 0)

    def put(self, cohort: Cohort, samples: Sequence[Sample]) -> None:
        """Take what a cohort came to."""
        del self.cohorts[cohort]
        for index, sample in zip(cohort.indices, samples, strict=True):
            self.samples[index] = sample

    def put_before(self, ticket: int, samples: Sequence[Sample]) -> Table:
        """Take references that another submission made for it again; returns their table."""
        table = self.before.pop(ticket)
        table.take(samples)
        nfe, forwards, gradients = self.again
        self.again = (
            nfe + sum(sample.nfe + sample.nfe_again for sample in samples),
            forwards + sum(sample.forwards + sample.forwards_again for sample in samples),
            gradients + sum(sample.gradients + sample.gradients_again for sample in samples),
        )
        return table

    @property
    def made(self) -> tuple[Sample, ...]:
        """All samples; what references took again is counted with the first of them."""
        first, *others = (sample for sample in self.samples if sample is not None)
        nfe, forwards, gradients = self.again
        first = replace(
            first,
            nfe_again=first.nfe_again + nfe,
            forwards_again=first.forwards_again + forwards,
            gradients_again=first.gradients_again + gradients,
        )
        return (first, *others)
