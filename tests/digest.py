"""A digest of what searches find: `python -m tests.digest [ALGORITHM ...]`.

Runs each algorithm once on the bundled model, in this process, and prints a line for each: a hash over every round
(recipes, costs, scores to the last bit), the curve, the usage, the result and the winners' pixels. The same is done for
ensembles with auditors, a final generation, previews, sets, and the searches of a study. A change that is not to change
results leaves every line as it was; between machines the lines differ, as do the last bits of scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.machine import network_dtype, take_machine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.local import Found, run_request
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.defaults import with_sampler
from sitsearch.workers.search.runs.start import Run
from sitsearch.workers.studies.comparison.cells import case_of
from sitsearch.workers.studies.comparison.contenders import Contender
from sitsearch.workers.studies.comparison.shared import run_together
from sitsearch.workers.studies.comparison.tasks import TASKS

#: Network rows of one forward; the classes that are asked for.
BATCH, CLASS, SET = 16, 16, (3, 10, 40)
STEPS, CANDIDATES = 5, 12
#: Pictures that a comparison's searches have scored at once.
SCORED = 64
#: What else is searched for, by name: what the request has besides `BASE`.
OTHERS: dict[str, dict[str, Any]] = {
    "ensemble": {
        "verifier": {"name": "ensemble", "members": ["classifier", "aesthetic"]},
        "auditors": ["auditor"],
        "search": "zero_order",
        "num_images": 2,
    },
    "gate": {
        "verifier": {"name": "ensemble", "members": ["classifier", "aesthetic"], "rule": "gate", "least": [-0.5]},
        "auditors": ["auditor"],
    },
    "final": {"sampler": {"method": "heun", "steps": 2, "guidance": 1.5, "final_steps": 6}, "num_images": 2},
    "patience": {"stop": {"patience_nfe": 15}, "search": {"algorithm": "random", "round_size": 2}},
    "preview": {"verifier": "similarity", "search": "zero_order"},
    "set": {"condition": {"classes": list(SET)}, "verifier": "fid"},
    "set_by_class": {"condition": {"classes": list(SET)}, "per_condition": 2},
}
VERIFIERS = ("aesthetic", "auditor", "classifier", "fid", "similarity")


def request_of(algorithm: str, extra: Mapping[str, Any]) -> GenerateRequest:
    """A small request, its sampler's fields filled in."""
    fields = {
        "condition": {"class": CLASS},
        "budget": {"nfe": STEPS * CANDIDATES},
        "verifier": "classifier",
        "search": algorithm,
        "sampler": {"steps": STEPS, "guidance": 1.0},
        "seed": 11,
    }
    request = GenerateRequest.model_validate(fields | dict(extra))
    return with_sampler(request, SamplerChoice(method="euler"), METHODS.values())


def hashed(parts: list[Any], found: Found) -> str:
    """The digest of a search's rounds and of what it found."""
    for part in (found.progress, found.usage, found.result):
        parts.append(part.model_dump(mode="json"))
    text = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(text + found.images.contiguous().numpy().tobytes()).hexdigest()[:32]


def lines(names: list[str]) -> Iterator[tuple[str, str]]:
    """Name and digest of every search."""
    take_machine()
    engine = Engine(load_generator("glyphs", dtype=network_dtype("auto", "cpu")), batch=BATCH)
    verifiers = {name: load_verifier(name) for name in VERIFIERS}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in names}
    wanted |= {name: ("random", extra) for name, extra in OTHERS.items()}
    for name, (algorithm, extra) in wanted.items():
        rounds: list[Any] = []

        def watch(run: Run, rounds: list[Any] = rounds) -> None:
            rounds.append(run.log().model_dump(mode="json"))
            rounds.append([candidate.id for candidate in run.kept])

        request = request_of(algorithm, extra)
        conditions = [Condition(one.class_) for one in request.condition.each]  # type: ignore[arg-type]
        yield name, hashed(rounds, run_request(engine, verifiers, request, conditions=conditions, watch=watch))
    task = replace(TASKS["classes"], sampler={"steps": STEPS, "guidance": 1.0})
    selector = Scorer(verifiers[task.selector], batch=SCORED)
    for name in names:
        cases = [
            case_of(task, Contender(name, name), STEPS * CANDIDATES, task.conditions[place], seed)
            for place, seed in ((1, 0), (7, 1))
        ]
        ended = run_together(engine, selector, cases)
        results = [case.search.result().model_dump(mode="json") for case in sorted(ended, key=lambda case: case.job)]
        yield f"study/{name}", hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:32]


def main() -> None:
    """Print the digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help="[default: all]")
    for name, digest in lines(parser.parse_args().algorithms or sorted(ALGORITHMS)):
        print(f"{digest}  {name}", flush=True)


if __name__ == "__main__":
    main()
