"""The command; see the package."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import run_schedule
from tests.simulation.valkey import valkey


def main() -> int:
    """Run schedules, and print what came of them; the exit code says whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="the service on virtual time")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow it")
    parser.add_argument("--verbose", action="store_true", help="tell what happens in the first, and stop")
    parser.add_argument(
        "--mutants", nargs="?", const="", metavar="TEXT", help="put mended faults back, until each is found"
    )
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.mutants is not None:
        return find_mutants([name for name in MUTANTS if given.mutants in name], given.seed, given.schedules)
    faults: Counter[str] = Counter()
    jobs, failed, begin = 0, 0, time.perf_counter()
    with valkey() as client:
        for seed in range(given.seed, given.seed + (1 if given.verbose else given.schedules)):
            outcome = run_schedule(seed, client)
            jobs += outcome.jobs
            faults.update(outcome.faults)
            if given.verbose:
                print(*(f"{at:8.2f} {text}" for at, text in outcome.story), sep="\n")
            if outcome.problem:
                failed += 1
                print(f"seed {seed}: {outcome.problem}", flush=True)
            if (seed + 1) % 500 == 0:
                print(f"{seed + 1 - given.seed} schedules, {failed} failed", flush=True)
    seconds = time.perf_counter() - begin
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    print(f"{jobs} jobs, {sum(faults.values())} faults ({told}) in {seconds:.0f} s: {failed} schedules failed")
    return 1 if failed else 0


def find_mutants(names: Sequence[str], first: int, most: int) -> int:
    """For each of some mutants, say by which schedule it is found; the exit code says whether all were."""
    missed = 0
    with valkey() as client:
        for name in names:
            with MUTANTS[name]():
                outcomes = (run_schedule(seed, client) for seed in range(first, first + most))
                found = next((outcome for outcome in outcomes if outcome.problem), None)
            missed += found is None
            told = f"missed in {most} schedules" if found is None else f"seed {found.seed}: {found.problem}"
            print(f"{name}: {told}", flush=True)
    print(f"{len(names) - missed} of {len(names)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
