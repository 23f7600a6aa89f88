"""Golden traces: what every algorithm proposed and found on the toy landscape when its trace was last written.

    python -m tests.workers.search.algorithms.make_traces [ALGORITHM ...]

writes those of the algorithms named, or of all. Do so when an algorithm was changed on purpose, and look at the
difference: jobs whose logs were written before will not replay.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import allowance_of, evaluate, request, rugged, start

FOLDER = Path(__file__).parent / "traces"
#: Algorithms that have a trace: those of this package, not plug-ins.
BUILT_IN = sorted(name for name, search in ALGORITHMS.items() if type(search).__module__.startswith("sitsearch."))
#: Budget in whole trajectories: a pass of every algorithm, and something for what follows it.
WHOLE = 20


def score(recipe: Recipe) -> float:
    """White noise of three digits."""
    return round(rugged(recipe), 3)


def path_of(name: str) -> Path:
    """Where the trace of algorithm `name` is."""
    return FOLDER / f"{name}.json"


def describe(proposal: Proposal) -> dict[str, Any]:
    """What of a proposal is in a trace."""
    return proposal.model_dump(mode="json", exclude={"id", "condition"})


def record(name: str) -> dict[str, Any]:
    """The trace of algorithm `name` as it is now."""
    asked = request(name, num_images=2)
    asked = request(name, nfe=WHOLE * allowance_of(asked).sampling.whole, num_images=2)
    run, rounds = start(asked), []
    while proposals := run.ask():
        told = evaluate(proposals, run.phase, score)
        run.tell(told)
        rounds.append({"proposals": [describe(p) for p in proposals], "scores": [score(p.recipe) for p in proposals]})
    return {
        "request": run.request.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "rounds": rounds,
        "result": outcome(run),
    }


def outcome(run: SearchRun) -> dict[str, Any]:
    """What a run came to, for its trace."""
    result = run.result()
    return {
        "winners": [image.candidate.id for image in result.images],
        "scores": [image.score for image in result.images],
        "candidates": result.candidates,
        "nfe": run.usage.nfe_search,
    }


def dumps(trace: dict[str, Any]) -> str:
    """A trace as JSON, one line a proposal, so that differences can be read."""
    rounds = []
    for done in trace["rounds"]:
        proposals = ",\n   ".join(_line(proposal) for proposal in done["proposals"])
        rounds.append(f'  {{"proposals": [\n   {proposals}\n  ],\n  "scores": {_line(done["scores"])}}}')
    body = ",\n".join(rounds)
    return (
        f'{{\n "request": {_line(trace["request"])},\n'
        f' "rounds": [\n{body}\n ],\n'
        f' "result": {_line(trace["result"])}\n}}\n'
    )


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or BUILT_IN:
        path_of(chosen).write_text(dumps(record(chosen)), encoding="utf-8")
