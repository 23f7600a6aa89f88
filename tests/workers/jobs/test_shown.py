"""What pages show of a round."""

from __future__ import annotations

import pytest

from sitsearch.workers.jobs.shown import chosen, pack, scores_of, shown, unpack
from tests.workers.jobs.store.makers import make_candidate, make_round

SCORES = (0.3, 0.9, 0.1, 0.5, 0.7, 0.2, 0.8, 0.4)
CANDIDATES = tuple(make_candidate(f"0-{place}", score, 0, place) for place, score in enumerate(SCORES))


@pytest.mark.parametrize("most", range(1, 10))
def test_of_a_large_round_the_best_the_first_and_others_between_best_and_worst_are_shown(most: int) -> None:
    picked = chosen(CANDIDATES, most)
    assert len(picked) == min(most, len(CANDIDATES))
    ids = [candidate.id for candidate in picked]
    assert "0-1" in ids and ids == sorted(ids), "the best, in order of proposal"
    assert most < 2 or "0-0" in ids
    assert most < 3 or any(candidate.scores["classifier"] <= 0.5 for candidate in picked)


def test_a_shown_round_is_read_as_it_was_written() -> None:
    page = shown(make_round(3), 24)
    assert unpack(pack(page)) == page and page.count == 1


def test_scores_come_in_columns() -> None:
    assert scores_of(CANDIDATES[:2]) == {"ids": ["0-0", "0-1"], "scores": {"classifier": [0.3, 0.9]}}
    assert scores_of(()) == {}
