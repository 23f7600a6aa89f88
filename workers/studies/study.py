"""What each algorithm makes of a budget: `python -m sitsearch.workers.studies.study --out docs/study`.

Every algorithm searches for every class of `glyphs` from several seeds at several budgets; the classifier selects, and
an independently trained classifier, the auditor, says what it thinks of the winners. All searches of one algorithm at
one budget run at once on one engine. Finished ones are kept in `runs.jsonl`, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.machine import take_machine
from sitsearch.workers.engine.offers import METHODS, method_named
from sitsearch.workers.engine.orders import Order, orders_of
from sitsearch.workers.engine.trajectory import made_of
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.defaults import with_sampler
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.studies.study_report import TARGET, write_report

CANDIDATES = (2, 4, 8, 16, 32)
SCORED = 64


@dataclass(frozen=True)
class Pictures:
    """Pictures `[N, H, W, 3]` uint8 to be scored."""

    images: Tensor


class Awaited:
    """What a search waits for: orders to be sampled, or pictures to be scored. Awaiting it gives what came of it."""

    def __init__(self, wanted: list[Order] | Pictures) -> None:
        self.wanted = wanted

    def __await__(self) -> Generator[Awaited, Any, Any]:
        return (yield self)


class Case(InMemory[Tensor]):
    """One search under way, which stops where it needs the engine or the verifier that it shares with others.

    Args:
        label: the class.
        seed: of the case.
        run: the search.
    """

    sets = False

    def __init__(self, label: int, seed: int, run: SearchRun) -> None:
        super().__init__()
        self.label, self.seed, self.search = label, seed, run
        self._course = drive(run, self)

    @property
    def job(self) -> str:
        """The name of its latents."""
        return f"{self.label}-{self.seed}"

    def go_on(self, answer: Any) -> list[Order] | Pictures | None:
        """Give the search what it waited for (at first None); what it waits for next, or None at its end."""
        try:
            awaited: Awaited = self._course.send(answer)
        except StopIteration:
            return None
        return awaited.wanted

    async def make(self, proposals: Sequence[Proposal]) -> Made[Tensor]:
        """See `Executor.make`."""
        orders = orders_of(proposals, self.search.request.sampler, [Condition(self.label)])
        return made_of(await Awaited(orders))

    async def score(
        self, names: Sequence[str], images: Tensor, conditions: Sequence[int], previews: Tensor | None
    ) -> list[dict[str, float]]:
        """See `Executor.score`: there is one verifier."""
        (name,) = names
        return [{name: score} for score in await Awaited(Pictures(images))]

    async def score_set(self, images: Tensor, chosen: Sequence[Tensor]) -> tuple[list[float], list[Tensor]]:
        """See `Executor.score_set`: a study searches for one class at a time."""
        raise AssertionError("a study judges no sets")


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
        ready: list[tuple[Case, Any]] = [
            (Case(label, seed, SearchRun(*self._request(algorithm, nfe, label, seed))), None) for label, seed in cases
        ]
        sampling: dict[int, Case] = {}
        scoring: list[tuple[Case, Tensor]] = []
        while ready or sampling or scoring:
            for case, answer in ready:
                wanted = case.go_on(answer)
                if wanted is None:
                    yield self._record(case)
                elif isinstance(wanted, Pictures):
                    scoring.append((case, wanted.images))
                else:
                    sampling[self.engine.submit(case.job, wanted)] = case
            # Scoring one submission at a time would leave the verifier's batches empty.
            if scoring and (sum(len(images) for _, images in scoring) >= SCORED or not self.engine.busy):
                ready, scoring = self._scored(scoring), []
            else:
                ready = [(sampling.pop(done.ticket), done.samples) for done in self.engine.step()]

    def _scored(self, scoring: Sequence[tuple[Case, Tensor]]) -> list[tuple[Case, Any]]:
        """Each case with its scores, all scored together."""
        conditions = [Condition(case.label) for case, images in scoring for _ in images]
        scores = iter(self.selector.score(torch.cat([images for _, images in scoring]), conditions))
        return [(case, list(islice(scores, len(images)))) for case, images in scoring]

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

    def _record(self, case: Case) -> dict[str, Any]:
        run = case.search
        best = run.best[0]
        (audited,) = self.auditor.score(case.images[best.id][None], [Condition(case.label)])
        return {
            "algorithm": run.request.search.algorithm,
            "budget": run.request.budget.nfe,
            "class": case.label,
            "seed": case.seed,
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
