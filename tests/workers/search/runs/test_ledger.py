"""What a run's result says of its log."""

from __future__ import annotations

from collections.abc import Sequence

from sitsearch.workers.engine.offers import method_named
from sitsearch.workers.jobs.fingerprint import Fingerprint, Origin
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.logged import pack, unpack
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.start import start_run

REQUEST = GenerateRequest.model_validate(
    {
        "condition": {"class": 0},
        "budget": {"nfe": 12},
        "verifier": "v",
        "search": {"algorithm": "random", "round_size": 1},
        "sampler": {"method": "euler", "steps": 4, "guidance": 1},
    }
)
HERE, THERE = (Origin(samplers=(Fingerprint(device=name),)) for name in ("A", "B"))


def told(proposals: Sequence[Proposal]) -> list[Candidate]:
    return [Candidate(id=p.id, recipe=p.recipe, nfe=p.nfe, forwards=p.nfe, scores={"v": 1.0}) for p in proposals]


def test_a_result_knows_the_root_of_its_log_and_what_made_its_rounds() -> None:
    run, packed = start_run(REQUEST, method_named("euler")), []
    for origin in (HERE, HERE, THERE):
        run.tell(told(run.ask()))
        packed.append(pack(run.seal(origin)))
    assert not run.ask()
    result = run.result()
    assert [unpack(entry).origin for entry in packed] == [HERE, None, THERE]  # said where it changes
    assert result.origins == (HERE, THERE)
    assert result.warnings == ("rounds of this search were made in different ways: sampler's device: A, B",)
    again = start_run(REQUEST, method_named("euler"))
    again.replay(unpack(entry) for entry in packed)
    assert not again.ask() and again.result() == result and again.result().log is not None
