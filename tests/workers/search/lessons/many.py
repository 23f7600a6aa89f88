"""Lessons of many jobs, as the store adds them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sitsearch.workers.search.lessons.record import Learnt, Lesson, Sums, fields_of


def fields_of_all(lessons: Iterable[Lesson]) -> dict[str, float]:
    """What the store has of some lessons."""
    added: Counter[str] = Counter()
    for lesson in lessons:
        added.update(fields_of(lesson.sums()))  # type: ignore[arg-type]
    return dict(added)


def learnt_from(lessons: Iterable[Lesson]) -> Learnt:
    """What some lessons come to."""
    return Learnt(fields_of_all(lessons))


def learnt(**sums: tuple[float, float] | list[float]) -> Learnt:
    """What is learnt of `Sums`, given as `(n, total)` or as a list of values; `__` parts the parts of their names."""
    named = {
        name.replace("__", ":"): Sums.of(given) if isinstance(given, list) else Sums(n=given[0], total=given[1])
        for name, given in sums.items()
    }
    return Learnt(fields_of(named))
