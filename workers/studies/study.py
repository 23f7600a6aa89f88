"""What each algorithm makes of a budget: `python -m sitsearch.workers.studies.study --out docs/study`.

Every algorithm searches for every class of `glyphs` from several seeds at several budgets; the classifier selects, and
an independently trained classifier, the auditor, says what it thinks of the winners. All searches of one algorithm at
one budget run at once on one engine. Finished ones are kept in `runs.jsonl`, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Done, Engine
from sitsearch.workers.engine.machine import take_machine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.local import method_named, orders_of
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.defaults import with_sampler
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.studies.study_report import TARGET, write_report

CANDIDATES = (2, 4, 8, 16, 32)
SCORED = 64


@dataclass
class Running:
    """One search under way, and what it waits for."""

    label: int
    seed: int
    run: SearchRun
    proposals: tuple[Proposal, ...] = ()
    images: dict[str, Tensor] | None = None

    @property
    def job(self) -> str:
        """The name of its latents."""
        return f"{self.label}-{self.seed}"


class Study:
    """One engine, one selecting verifier, one auditor.

    Args:
        engine: over the model to search.
        selector: what selects.
        auditor: what is asked of the winners.
        sampler: settings that every algorithm shares.
        norm: of the diffusion of the SDE, for those algorithms that need one.
    """

    def __init__(
        self, engine: Engine, selector: Verifier, auditor: Verifier, sampler: dict[str, Any], norm: float
    ) -> None:
        self.engine, self.sampler, self.norm = engine, sampler, norm
        self.selector, self.auditor = Scorer(selector, batch=SCORED), Scorer(auditor, batch=SCORED)

    def run(self, algorithm: str, nfe: int, cases: Iterable[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        """Search `(class, seed)` by `(class, seed)`, all at once; yields a record for each, in the order they end."""
        waiting: dict[int, Running] = {}
        for label, seed in cases:
            search = Running(label, seed, SearchRun(*self._request(algorithm, nfe, label, seed)), images={})
            self._ask(search, waiting)
        done: list[Done] = []
        while waiting:
            done += self.engine.step()
            # Scoring one submission at a time would leave the verifier's batches empty.
            if sum(len(d.samples) for d in done) >= SCORED or (done and not self.engine.busy):
                yield from self._tell(done, waiting)
                done = []

    def _request(self, algorithm: str, nfe: int, label: int, seed: int) -> tuple[GenerateRequest, Any]:
        stochastic = ALGORITHMS[algorithm].stochastic
        request = GenerateRequest.model_validate(
            {
                "condition": {"class": label},
                "budget": {"nfe": nfe},
                "verifier": "selector",
                "search": algorithm,
                "sampler": self.sampler | ({"norm": self.norm} if stochastic else {}),
                "seed": 1000 * seed + label,
            }
        )
        request = with_sampler(request, SamplerChoice(method="euler"), METHODS.values(), stochastic=stochastic)
        return request, method_named(request.sampler.method)

    def _ask(self, search: Running, waiting: dict[int, Running]) -> bool:
        """Submit the search's next round; False when it has ended."""
        search.proposals = search.run.ask()
        if not search.proposals:
            return False
        orders = orders_of(search.proposals, search.run.request.sampler, [Condition(search.label)])
        waiting[self.engine.submit(search.job, orders)] = search
        return True

    def _tell(self, done: list[Done], waiting: dict[int, Running]) -> Iterator[dict[str, Any]]:
        searches = [waiting.pop(d.ticket) for d in done]
        pictures = torch.stack([sample.image for d in done for sample in d.samples])
        conditions = [Condition(search.label) for search, d in zip(searches, done, strict=True) for _ in d.samples]
        scores = iter(self.selector.score(pictures, conditions))
        for search, d in zip(searches, done, strict=True):
            candidates = [
                Candidate(id=p.id, recipe=p.recipe, nfe=s.nfe, forwards=s.forwards, scores={"selector": next(scores)})
                for p, s in zip(search.proposals, d.samples, strict=True)
            ]
            search.run.tell(candidates)
            images = (search.images or {}) | {c.id: s.image for c, s in zip(candidates, d.samples, strict=True)}
            search.images = {c.id: images[c.id] for c in search.run.best}
            if not self._ask(search, waiting):
                yield self._record(search)

    def _record(self, search: Running) -> dict[str, Any]:
        run = search.run
        best, images = run.best[0], search.images or {}
        (audited,) = self.auditor.score(images[best.id][None], [Condition(search.label)])
        return {
            "algorithm": run.request.search.algorithm,
            "budget": run.request.budget.nfe,
            "class": search.label,
            "seed": search.seed,
            "nfe": run.progress.nfe_spent,
            "score": best.scores["selector"],
            "audit": audited,
            "rounds": run.rounds,
        }


def main() -> None:
    """Run what is missing of the study, and write its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs.jsonl, study.md and study.png")
    parser.add_argument("--algorithms", nargs="+", default=sorted(ALGORITHMS), choices=sorted(ALGORITHMS))
    parser.add_argument("--candidates", nargs="+", type=int, default=CANDIDATES, help="budgets, in whole trajectories")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=None, help="only so many, evenly spread [default: all]")
    parser.add_argument("--steps", type=int, default=6, help="sampling steps of a trajectory")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--norm", type=float, default=0.3, help="of the SDE's diffusion, where an algorithm needs one")
    parser.add_argument("--batch", type=int, default=64, help="network rows of one forward")
    parser.add_argument("--compile", action="store_true", help="compile the network: slower to start, then faster")
    args = parser.parse_args()
    take_machine()
    args.out.mkdir(parents=True, exist_ok=True)
    generator = load_generator("glyphs", dtype=torch.bfloat16)
    if args.compile:
        generator.compile()
    sampler = {"steps": args.steps, "guidance": args.guidance}
    engine, selector, auditor = (
        Engine(generator, batch=args.batch),
        load_verifier("classifier"),
        load_verifier("auditor"),
    )
    study = Study(engine, selector, auditor, sampler, args.norm)
    log = args.out / "runs.jsonl"
    known = {
        (r["algorithm"], r["budget"], r["class"], r["seed"])
        for r in map(json.loads, log.read_text().splitlines() if log.exists() else ())
    }
    names = model_card("glyphs").classes
    labels = range(0, len(names), max(1, len(names) // args.classes) if args.classes else 1)
    cells = [(algorithm, candidates) for candidates in args.candidates for algorithm in args.algorithms]
    for algorithm, candidates in dict.fromkeys([*cells, ("random", TARGET)]):
        nfe = candidates * args.steps
        every = [(label, seed) for seed in range(args.seeds) for label in labels]
        cases = [(label, seed) for label, seed in every if (algorithm, nfe, label, seed) not in known]
        begin, scores = time.monotonic(), []
        with log.open("a") as file:
            for record in study.run(algorithm, nfe, cases):
                file.write(json.dumps(record) + "\n")
                scores.append(record["score"])
        if scores:
            mean, seconds = sum(scores) / len(scores), time.monotonic() - begin
            print(f"{algorithm:20s} {nfe:6d} NFE  score {mean:8.4f}  {seconds:6.1f} s", flush=True)
    write_report(args.out, steps=args.steps, guidance=args.guidance, norm=args.norm)


if __name__ == "__main__":
    main()
