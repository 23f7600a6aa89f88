"""Ensembles, auditors, and the sign of verifier hacking."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import VerifierChoice
from sitsearch.workers.search.base import Proposal, Scored, State, remembered, rescored
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.selection import Selection, hacking
from tests.workers.search.toy import evaluate, request, start

MEMBERS = ("a", "b")


def recipe(index: int, time: float = 0.0) -> Recipe:
    """Candidate `index`, which ends at `time`."""
    start = Recipe(seed=0, round=0, index=index)
    return start.then(Integrate(to=time, steps=1)) if time else start


def seen(choice: dict[str, Any], rows: list[tuple[float, ...]], times: Sequence[float] | None = None) -> list[float]:
    """What candidates with these members' scores come to, all being seen; `times` are where they end."""
    selection = Selection(VerifierChoice.model_validate({"name": "ensemble", "members": MEMBERS} | choice))
    candidates = [
        Candidate(id=str(i), recipe=recipe(i, t), nfe=1, forwards=1, scores=dict(zip(MEMBERS, row, strict=True)))
        for i, (row, t) in enumerate(zip(rows, times or [1.0] * len(rows), strict=True))
    ]
    for candidate in candidates:
        selection.add([candidate])
    scores = selection.scores([c.recipe for c in candidates])
    return [scores[c.recipe] for c in candidates]


def test_ranks_are_averaged_and_ties_share_theirs() -> None:
    # a: 1, 2.5, 2.5, 4 of 4; b: 4, 1, 2, 3
    assert seen({}, [(0.1, 9), (0.2, 1), (0.2, 2), (0.9, 3)]) == pytest.approx([0.625, 0.4375, 0.5625, 0.875])


@pytest.mark.parametrize("rule", ["rank", "zscore"])
def test_candidates_are_compared_with_those_of_their_time(rule: str) -> None:
    """Previews that score higher, or lower, than any image change nothing among images; nor images among previews."""
    images, previews = [(0.1, 9.0), (0.2, 1.0), (0.9, 3.0)], [(5.0, -4.0), (7.0, -9.0)]
    later = [(0.15, 2.0), (0.05, 1.0), (0.3, 0.5)]
    times = [1.0, 0.5, 1.0, 0.5 + 1e-12, 0.75, 1.0, 0.75, 0.75]
    rows = [images[0], previews[0], images[1], previews[1], later[0], images[2], later[1], later[2]]
    mixed = seen({"rule": rule}, rows, times)
    for alone, places in ((images, (0, 2, 5)), (previews, (1, 3)), (later, (4, 6, 7))):
        assert [mixed[place] for place in places] == pytest.approx(seen({"rule": rule}, alone))


def test_ranks_do_not_care_for_scale() -> None:
    rows = [(random.Random(i).random(), random.Random(-i).random()) for i in range(20)]
    assert seen({}, rows) == seen({}, [(1e6 * a - 3, b**3) for a, b in rows])


def test_standardised_scores_are_weighted() -> None:
    rows = [(0.0, 10.0), (1.0, 0.0), (2.0, 5.0)]
    z = [1.5**0.5 * (x - 1) for x in (0.0, 1.0, 2.0)]
    w = [1.5**0.5 * (x - 1) for x in (2.0, 0.0, 1.0)]
    expected = [(3 * a + b) / 4 for a, b in zip(z, w, strict=True)]
    assert seen({"rule": "zscore", "weights": (3, 1)}, rows) == pytest.approx(expected)
    assert seen({"rule": "zscore"}, [(1.0, 1.0)] * 3) == [0.0] * 3


def test_a_gate_takes_what_passes_by_the_last_member_and_else_what_comes_nearest() -> None:
    rows = [(0.2, 100.0), (0.5, -3.0), (0.9, 1.0), (0.4, 5.0)]
    scores = seen({"rule": "gate", "least": (0.5,)}, rows)
    assert sorted(range(4), key=lambda i: -scores[i]) == [2, 1, 3, 0]


@pytest.mark.parametrize(
    "choice",
    [
        {"name": "ensemble"},
        {"name": "classifier", "members": ["a", "b"]},
        {"name": "ensemble", "members": ["a", "a"]},
        {"name": "ensemble", "members": ["a", "b"], "weights": [1, 2]},
        {"name": "ensemble", "members": ["a", "b"], "rule": "gate"},
        {"name": "ensemble", "members": ["a", "b"], "rule": "gate", "least": [1, 2]},
    ],
)
def test_a_choice_that_does_not_hang_together_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VerifierChoice.model_validate(choice)


def test_auditors_neither_repeat_nor_select() -> None:
    for auditors in (["x", "x"], ["toy"]):
        with pytest.raises(ValidationError, match="auditors"):
            request("random", auditors=auditors)
    with pytest.raises(ValidationError, match=r"stop\.score"):
        request("random", verifier={"name": "ensemble", "members": ["a", "b"]}, stop={"score": 0.5})


class Remembering(State):
    pivot: Scored
    elites: tuple[Scored, ...]


def test_what_a_search_remembers_is_brought_up_to_date() -> None:
    state = State.model_construct()
    scored = [Scored(recipe=recipe(i), score=float(i)) for i in range(3)]
    state = Remembering.model_construct(allowance=None, pivot=scored[0], elites=tuple(scored[1:]), round=4, spent=7)
    assert remembered(state) == [recipe(0), recipe(1), recipe(2)]
    new = rescored(state, {recipe(i): 10.0 + i for i in range(3)})
    assert [new.pivot.score, *(e.score for e in new.elites)] == [10.0, 11.0, 12.0]
    assert (new.round, new.spent) == (4, 7)


def told(proposals: tuple[Proposal, ...]) -> list[Candidate]:
    return [
        Candidate(
            id=p.id,
            recipe=p.recipe,
            nfe=p.nfe,
            forwards=p.nfe,
            scores={name: random.Random(name + p.recipe.model_dump_json()).random() for name in MEMBERS},
        )
        for p in proposals
    ]


@pytest.mark.parametrize("rule", ["rank", "zscore"])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_winner_of_an_ensemble_is_the_best_of_all_that_were_seen(name: str, rule: str) -> None:
    run = start(request(name, nfe=1000, verifier={"name": "ensemble", "members": MEMBERS, "rule": rule}))
    everyone: list[Candidate] = []
    while proposals := run.ask():
        everyone += told(proposals)
        run.tell(told(proposals))
    rows, times = [tuple(c.scores[m] for m in MEMBERS) for c in everyone], [c.recipe.time for c in everyone]
    final = seen({"rule": rule}, rows, [time or 1e-6 for time in times])
    finished = [index for index, candidate in enumerate(everyone) if candidate.recipe.finished]
    best = max(finished, key=final.__getitem__)
    (image,) = run.result().images
    assert image.candidate == everyone[best] and image.score == pytest.approx(final[best])
    assert run.progress.curve[-1].scores == everyone[best].scores


def test_auditors_are_asked_of_every_new_winner_and_replayed_from_the_log() -> None:
    asked = request("random", nfe=4000, auditors=["judge"], search={"algorithm": "random", "round_size": 8})

    def go_on(run: Any, log: list[Any]) -> Any:
        while proposals := run.ask():
            run.tell(evaluate(proposals))
            if run.to_audit is not None:
                run.audit({"judge": -run.to_audit.scores["toy"]})  # an auditor that likes what the selector does not
            run.seal()
            log.append(run.log())
        return run

    log: list[Any] = []
    run = go_on(start(asked), log)
    curve = run.progress.curve
    audited = [point.scores["judge"] for point in curve if point.scores]
    assert len(audited) == len({point.score for point in curve}) >= 4
    assert run.result().images[0].audits == {"judge": -run.result().images[0].score}
    assert run.result().hacking == ("judge",)
    again = start(asked)
    again.replay(log[:7])
    assert (go_on(again, []).result(), again.progress) == (run.result(), run.progress)


def test_hacking_is_said_only_of_auditors_that_fall() -> None:
    falling, rising = [0.9, 0.8, 0.85, 0.4], [0.1, 0.2, 0.3, 0.4]
    points = [{"f": f, "r": r, "flat": 1.0} for f, r in zip(falling, rising, strict=True)]
    assert hacking(points, ("f", "r", "flat")) == ("f",)
    assert hacking(points[:3], ("f",)) == ()  # too few winners to tell
    assert hacking([{"f": x} for x in (0.1, 0.9, 0.8, 0.2)], ("f",)) == ()  # no lower than it began
