"""What is searched for: the two tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sitsearch.models.condition import Condition
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import Glyph, canonical
from sitsearch.workers.studies.attributes import ASKED


@dataclass(frozen=True)
class Asked:
    """One condition of a task.

    Attributes:
        id: its name in the log.
        place: its place among all of the task's conditions; seeds are drawn by it.
        condition: as model and verifiers know it.
        glyph: the attributes asked for, where the judge `attributes` is one of the task's.
    """

    id: str
    place: int
    condition: Condition
    glyph: Glyph | None = None


@dataclass(frozen=True)
class Task:
    """What contenders search for, by what, and who judges.

    Attributes:
        name: in the log and on the command line.
        title: of its part of the report.
        conditions: what to draw.
        selector: the verifier that selects.
        judges: by name, see `sitsearch.workers.studies.comparison.judges`; none is the selector.
        sampler: fields of `SamplerChoice` that all contenders share, unless they name others.
        method: the sampling method of algorithms that need no stochastic one.
        model: the model card.
    """

    name: str
    title: str
    conditions: tuple[Asked, ...]
    selector: str
    judges: tuple[str, ...]
    sampler: Mapping[str, Any] = field(hash=False)
    method: str = "euler"
    model: str = "glyphs"

    def thinned(self, count: int | None) -> Task:
        """The task with so many of its conditions, evenly spread; all of them for None, or if there are fewer."""
        every = self.conditions
        if count is None or count >= len(every):
            return self
        return replace(self, conditions=tuple(every[i * len(every) // count] for i in range(count)))


def _prompts() -> tuple[Asked, ...]:
    return tuple(
        Asked(canonical(glyph), place, Condition(CLASSES.index(str(glyph.character)), canonical(glyph)), glyph)
        for place, glyph in enumerate(ASKED)
    )


def _classes() -> tuple[Asked, ...]:
    return tuple(Asked(name, place, Condition(place)) for place, name in enumerate(CLASSES))


TASKS = {
    task.name: task
    for task in (
        Task(
            name="prompts",
            title="Prompts that ask for six attributes",
            conditions=_prompts(),
            selector="clip_score",
            judges=("attributes", "auditor"),
            sampler={"steps": 20, "guidance": 1.5},
        ),
        Task(
            name="classes",
            title="Characters",
            conditions=_classes(),
            selector="classifier",
            judges=("auditor",),
            sampler={"steps": 6, "guidance": 1.0},
        ),
    )
}
