"""Every algorithm still proposes and finds what its golden trace says, so that logs of old jobs replay."""

from __future__ import annotations

import json

import pytest

from sitsearch.workers.jobs.request import GenerateRequest
from tests.workers.search.algorithms.make_traces import BUILT_IN, FOLDER, describe, outcome, path_of
from tests.workers.search.toy import evaluate, start

#: Bytes that a trace may take in the repository.
LARGEST = 60_000


def test_every_algorithm_has_a_trace_and_every_trace_an_algorithm() -> None:
    """Write what is missing with `python -m tests.workers.search.algorithms.make_traces`."""
    assert sorted(path.stem for path in FOLDER.iterdir()) == BUILT_IN
    assert all(path.stat().st_size < LARGEST for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_trace_is_replayed_proposal_by_proposal(name: str) -> None:
    trace = json.loads(path_of(name).read_text(encoding="utf-8"))
    run = start(GenerateRequest.model_validate(trace["request"]))
    for number, expected in enumerate(trace["rounds"]):
        proposals, scores = run.ask(), iter(expected["scores"])
        assert [describe(proposal) for proposal in proposals] == expected["proposals"], f"round {number}"
        run.tell(evaluate(proposals, run.phase, lambda _, scores=scores: next(scores)))
    assert run.ask() == ()
    assert outcome(run) == trace["result"]
