"""(i) What the largest job leaves in the store: a search of 1,000,000 NFE by every algorithm, on a real Valkey.

Each search is run for a part of that budget with scores from a normal distribution, which pack worst, and its rounds
are logged as a coordinator logs them. What the job's keys hold, and what was written to the append-only file, grow with
the rounds, so that they are given for the whole budget.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.common import Claim, Report, Setting
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.logged import log_bytes
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.drive import candidates_of
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.start import start_run
from sitsearch.workers.settings import Settings

WHOLE, STEPS = 1_000_000, 4
#: NFE that are spent, and as many rounds at most: a tree looks through all that it has in every round.
PART, ROUNDS = 20_000, 1000
BOUND = 100.0


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(i) what a job of 1,000,000 NFE leaves in the store")
    with tempfile.TemporaryDirectory(prefix="sitsearch-bench-") as folder, EmbeddedValkey(Path(folder)) as valkey:
        for algorithm in setting.pick([*ALGORITHMS], ["random"]):
            report.rows.append(asyncio.run(_logged(valkey, algorithm, setting.pick(PART, 200))))
    held = max(row["held, MB"] for row in report.rows)
    report.claims.append(Claim("(i) MB that the largest job holds, by any algorithm", held, BOUND, least=False))
    low = min(row["planned for, MB"] / row["log, MB"] for row in report.rows)
    report.claims.append(Claim("(i) what admission plans for the log, over what it came to", low, 1.0))
    return report


async def _logged(valkey: EmbeddedValkey, algorithm: str, nfe: int) -> dict[str, Any]:
    """One search, and what its log came to, for `WHOLE`."""
    settings = Settings(_env_file=None, redis_url=valkey.url, key_prefix=f"bench-{algorithm}")
    store = JobStore.from_url(valkey.url, settings)
    method = "glass" if ALGORITHMS[algorithm].stochastic else "euler"
    request = GenerateRequest.model_validate(
        {
            "condition": {"class": "Q"},
            "budget": {"nfe": nfe},
            "verifier": "classifier",
            "search": algorithm,
            "sampler": {"method": method, "steps": STEPS, "guidance": 1},
        }
    )
    before = (await store.redis.info("persistence"))["aof_current_size"]
    await store.submit(Job(id=uuid.uuid4().hex, request=request, class_indices=(16,), created_at=time.time()))
    claim = await store.claim("bench")
    assert claim is not None
    run, draw, candidates = start_run(request, METHODS[method], METHODS.values()), random.Random(0), 0
    assert isinstance(run, SearchRun)
    while run.rounds < ROUNDS and (proposals := run.ask()):
        spent = [proposal.nfe for proposal in proposals]
        scores = [{"classifier": draw.gauss(0, 1)} for _ in proposals]
        run.tell(candidates_of(proposals, spent, spent, scores, run, [0] * len(spent)))
        candidates += len(proposals)
        await store.append_round(
            claim, run.seal(), progress=run.progress, usage=run.usage, images={}, keep=[c.id for c in run.kept]
        )
    written = (await store.redis.info("persistence"))["aof_current_size"] - before
    keys = [store.keys.job(claim.job.id), *store.keys.own(claim.job.id)]
    held = [await store.redis.memory_usage(key, samples=0) or 0 for key in keys]
    scale = WHOLE / (run.usage.nfe_search or 1) / 1_000_000
    await store.aclose()
    return {
        "algorithm": algorithm,
        "candidates": round(candidates * scale * 1_000_000),
        "rounds": round(run.rounds * scale * 1_000_000),
        "log, MB": held[1] * scale,
        "held, MB": sum(held) * scale,
        "written, MB": written * scale,
        "planned for, MB": log_bytes(candidates, run.rounds, 1) * scale,
    }
