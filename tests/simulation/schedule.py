"""One course of events, drawn from a seed, and what must hold at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from redis import Redis

from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.job import Extension, Job, Status
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.start import Run, start_run
from sitsearch.workers.search.sampling import Sampling
from tests.simulation.clock import Deadlock, virtual_time
from tests.simulation.network import Server, World
from tests.simulation.pools import judged, painted
from tests.simulation.service import SETTINGS, Service, seeded

#: Virtual seconds in which faults may come, in which all must be over, and for which jobs are drawn.
TROUBLE, OVER, ARRIVAL = 25.0, 3600.0, 8.0
#: Steps of a trajectory, and whole trajectories that a budget buys.
STEPS, CANDIDATES = 4, (2, 12)
FAULTS = ("kill", "stall", "cut", "drain", "gateway", "restart", "samplers", "verifier", "loss")
PLANS = ("run", "run", "run", "extend", "cancel", "resume")


class Broken(AssertionError):
    """What must hold does not."""


@dataclass
class Outcome:
    """What came of a schedule.

    Attributes:
        seed: of it.
        jobs: how many it had.
        faults: those that happened, by kind.
        problem: what does not hold that must; None if all does.
        story: what happened.
    """

    seed: int
    jobs: int = 0
    faults: list[str] = field(default_factory=list)
    problem: str | None = None
    story: Sequence[tuple[float, str]] = ()


def run_schedule(seed: int, client: Redis) -> Outcome:
    """Simulate what the seed says, on a Valkey that is emptied for it."""
    outcome = Outcome(seed)
    with virtual_time() as loop:
        world = World(loop, seed)
        with seeded(world):
            try:
                loop.complete(_course(world, Server(client, world), outcome), OVER)
            except Broken as error:
                outcome.problem = str(error)
            except (TimeoutError, Deadlock):
                outcome.problem = "not over after an hour"
        outcome.story = world.story
    return outcome


async def one_job(service: Service, algorithm: str, *, extended: bool) -> None:
    """Submit a job of `algorithm`, perhaps extend it, and hold its end against an undisturbed one.

    Raises:
        Broken: something is not as it must be.
    """
    job = (await service.request("POST", "/generate", json=_body(algorithm, 6, 1, 1))).json()
    ended = await _end(service, job["links"]["self"])
    if extended:
        more = {"nfe": ended["progress"]["nfe_budget"] + 4 * STEPS}
        await service.request("POST", job["links"]["extend"], json=more)
        ended = await _end(service, job["links"]["self"])
    await _check(service, ended, canceled=False)
    _check_store(service, 1)


async def _course(world: World, server: Server, outcome: Outcome) -> None:
    draw = world.draw
    faults = sorted((draw.uniform(1, TROUBLE), draw.choice(FAULTS)) for _ in range(draw.randint(1, 6)))
    outcome.faults = [kind for _, kind in faults]
    server.keeps = "restart" in outcome.faults
    service = Service(world, server, coordinators=draw.randint(1, 3))
    outcome.jobs = draw.randint(1, 3)
    trouble = asyncio.ensure_future(_trouble(service, faults))
    try:
        await asyncio.gather(*(_client(service, number) for number in range(outcome.jobs)), trouble)
        _check_store(service, outcome.jobs)
    finally:
        await service.end()


async def _trouble(service: Service, faults: Sequence[tuple[float, str]]) -> None:
    """Let the faults happen, each at its time; the last leaves the service whole."""
    world, draw, at = service.world, service.world.draw, 0.0
    for when, kind in faults:
        await asyncio.sleep(when - at)
        at = when
        seconds = draw.choice([0.5, 3.0, 20.0, 60.0])
        world.tell(f"fault: {kind} ({seconds:g} s)")
        service.background(_fault(service, kind, seconds))


async def _fault(service: Service, kind: str, seconds: float) -> None:
    world, draw = service.world, service.world.draw
    place = draw.randrange(len(service.running)) if service.running else None
    if kind in ("kill", "drain") and place is not None:
        if kind == "kill":
            service.kill(place)
        else:
            await service.drain(place)
        await asyncio.sleep(min(seconds, 20))
        service.start()
    elif kind in ("stall", "cut") and place is not None:
        process, _ = service.running[place]
        world.disturbances += 1
        setattr(process, "stalled_until" if kind == "stall" else "cut_until", world.loop.now + seconds)
    elif kind == "gateway":
        service.gateway.alive = False
        service.open_gateway()
    elif kind == "restart":
        world.disturbances += 100  # it may lose any number of rounds
        service.server.restart(seconds)
    elif kind in ("samplers", "verifier"):
        pool = service.sampler if kind == "samplers" else service.verifier
        pool.trouble = draw.uniform(0.05, 0.5)
        await asyncio.sleep(seconds)
        pool.trouble = 0.0
    elif kind == "loss":
        world.lost, world.twice = draw.uniform(0, 0.2), draw.uniform(0, 0.2)
        await asyncio.sleep(seconds)
        world.lost = world.twice = 0.0


async def _client(service: Service, number: int) -> None:
    """Submit a job, do with it what the seed says, and hold its end against an undisturbed one."""
    world, draw = service.world, service.world.draw
    await asyncio.sleep(draw.uniform(0, ARRIVAL))
    algorithm, plan = draw.choice([*ALGORITHMS]), draw.choice(PLANS)
    body = _body(algorithm, draw.randint(*CANDIDATES), draw.randint(0, 2), draw.randint(1, 2))
    key = {"Idempotency-Key": f"job-{number}"}
    job = (await service.request("POST", "/generate", json=body, headers=key)).json()
    world.tell(f"job {number} ({algorithm}, {plan}) is {job['id']}")
    here = job["links"]["self"]
    if plan in ("cancel", "resume"):
        await asyncio.sleep(draw.uniform(0, 10))
        canceled = (await service.request("POST", f"{here}/cancel")).json()
        if plan == "resume" and canceled["status"] == "canceled":
            await asyncio.sleep(draw.uniform(0, 5))
            await service.request("POST", f"{here}/resume")
        elif canceled["status"] == "canceled":
            await asyncio.sleep(draw.uniform(0, 30))
            if (now := await _end(service, here))["status"] != "canceled":
                raise Broken(f"job {now['id']} was canceled, and has {now['status']}")
    ended = await _end(service, here)
    if plan == "extend" and ended["status"] == "succeeded":
        more = ended["progress"]["nfe_budget"] + STEPS * draw.randint(2, 6)
        extended = (await service.request("POST", f"{here}/extend", json={"nfe": more})).json()
        if extended["result"] is None:
            raise Broken(f"job {extended['id']} has lost its result as it was extended")
        ended = await _end(service, here)
    world.tell(f"job {number} has {ended['status']}")
    await _check(service, ended, canceled=plan == "cancel")


async def _end(service: Service, here: str) -> dict[str, Any]:
    """The job once it has ended."""
    while True:
        job: dict[str, Any] = (await service.request("GET", here)).json()
        if job["status"] in ("succeeded", "failed", "canceled"):
            return job
        await asyncio.sleep(2)


async def _check(service: Service, ended: Mapping[str, Any], *, canceled: bool) -> None:
    """Hold a job's end, winner and history against those of an undisturbed run.

    Raises:
        Broken: they are others.
    """
    store = service.probe
    job = await _patiently(lambda: store.get(str(ended["id"])))
    rounds = await _patiently(lambda: _listed(store, job.id))
    if job.status is Status.CANCELED and canceled:
        expected, _ = _undisturbed(job.request.model_dump_json(), _extensions(job))
        if list(expected[: len(rounds)]) != rounds:
            raise Broken(f"the canceled job {job.id} has another history than undisturbed")
        return
    if job.status is not Status.SUCCEEDED or job.result is None:
        raise Broken(f"job {job.id} ({job.request.search.algorithm}) has {job.status}: {job.error}")
    expected, winners = _undisturbed(job.request.model_dump_json(), _extensions(job))
    if list(expected) != rounds:
        raise Broken(f"job {job.id} ({job.request.search.algorithm}) has another history than undisturbed")
    if winners != [(image.candidate.recipe, image.score) for image in job.result.images]:
        raise Broken(f"job {job.id} has other winners than undisturbed")
    if job.result.log is None or job.result.log.rounds != len(rounds):
        raise Broken(f"job {job.id} vouches for another log than it has")
    most = max(sum(json.loads(text)["nfe"]) for text in rounds)
    if job.usage.nfe_wasted > service.world.disturbances * most:
        raise Broken(f"job {job.id} wasted {job.usage.nfe_wasted} NFE in {service.world.disturbances} disturbances")


def _extensions(job: Job) -> str:
    return json.dumps([extension.model_dump() for extension in job.extensions])


def _check_store(service: Service, jobs: int) -> None:
    """Nothing is left of jobs that have ended, and every key of theirs will go.

    Raises:
        Broken: something is.
    """
    client: Any = service.server.client
    if (found := client.zcard(Keys(SETTINGS.key_prefix).jobs)) != jobs:
        raise Broken(f"{jobs} jobs were submitted, and there are {found}")
    for name in client.keys("*"):
        text = name.decode()  # type: ignore[union-attr]
        if text.endswith(("waiting", "leases", "queued", "running")) and client.zcard(name):
            raise Broken(f"{text} still holds {client.zrange(name, 0, -1)}")
        if ":job:" in text and client.ttl(name) == -1:
            raise Broken(f"{text} stays for ever")


async def _patiently(call: Any) -> Any:
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(1)


async def _listed(store: Any, job_id: str) -> list[str]:
    return [entry.text async for entry in store.rounds(job_id)]


@cache
def _body_text(algorithm: str, candidates: int, seed: int, images: int) -> str:
    stochastic = ALGORITHMS[algorithm].stochastic
    sampler = {"method": "euler_maruyama" if stochastic else "euler", "steps": STEPS, "guidance": 1}
    search: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "random":
        search["round_size"] = 2
    return json.dumps(
        {
            "condition": {"class": "Q"},
            "budget": {"nfe": STEPS * max(candidates, images)},
            "verifier": "classifier",
            "search": search,
            "sampler": sampler,
            "seed": seed,
            "num_images": images,
        }
    )


def _body(algorithm: str, candidates: int, seed: int, images: int) -> dict[str, Any]:
    """A request; few enough different ones that an undisturbed run of each can be kept."""
    body: dict[str, Any] = json.loads(_body_text(algorithm, candidates, seed, images))
    return body


class _Pure(InMemory[np.ndarray]):
    """What the pools answer when nothing goes wrong."""

    sets = False

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.texts = run, list[str]()

    async def make(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        choice = self.run.request.sampler
        costs = [
            Sampling(method=METHODS[p.recipe.method or choice.method], choice=choice).cost(
                p.recipe, p.known, evaluated=p.evaluated
            )
            for p in proposals
        ]
        return Made(np.stack([painted(p.recipe) for p in proposals]), costs, [cost * choice.rows for cost in costs])

    async def score(self, names: Sequence[str], images: np.ndarray, _: Any, __: Any) -> list[dict[str, float]]:
        return [{name: judged(image) for name in names} for image in images]

    async def log(self, run: Run, entry: Any, fresh: Any) -> None:
        await super().log(run, entry, fresh)
        self.texts.append(entry.text)


@cache
def _undisturbed(request: str, extensions: str) -> tuple[tuple[str, ...], list[tuple[Any, float]]]:
    """The log and the winners of a run of which nothing was lost."""
    asked = GenerateRequest.model_validate_json(request)
    run = start_run(asked, METHODS[asked.sampler.method], METHODS.values())
    pure = _Pure(run)
    for extension in [None, *(Extension.model_validate(one) for one in json.loads(extensions))]:
        if extension is not None:
            run.extend(extension.nfe)
        course = drive(run, pure)
        try:
            course.send(None)
        except StopIteration:
            continue
        raise AssertionError("a pure run waits for nothing")
    return tuple(pure.texts), [(image.candidate.recipe, image.score) for image in run.result().images]
