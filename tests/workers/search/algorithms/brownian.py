"""A toy trajectory whose score grows along it as Brownian motion: what is seen midway is the best guess of the end.

The noise over [s, t] adds N(0, t - s) to the score, named by the operation's draws; a start noise adds N(0, 1/4).
Renoising goes back along the motion: to a point of the Brownian bridge between those where operations ended.
A nudge of radius r changes a noise as it does in high dimension, by r U N(0, 1) in any one direction.
"""

from __future__ import annotations

import random
import statistics

from sitsearch.workers.jobs.recipe import Blend, Integrate, Perturb, Recipe, Renoise
from tests.workers.search.toy import evaluate, request, start


def gauss(*name: object) -> float:
    """N(0, 1), a function of its name."""
    return random.Random(repr(name)).gauss(0, 1)


def score(recipe: Recipe) -> float:
    """The data prediction's score, or the image's."""
    start = gauss("start", recipe.seed, recipe.round, recipe.index)
    path, t = 0.0, 0.0
    ends = [(0.0, 0.0)]
    for op in recipe.ops:
        if isinstance(op, Blend):
            start = (1 - op.strength**2) ** 0.5 * start + op.strength * gauss("blend", recipe.seed, op.round, op.index)
        elif isinstance(op, Perturb):
            path += op.scale * gauss("perturb", recipe.seed, op.round, op.index)
        elif isinstance(op, Integrate):
            noise = gauss("step", recipe.seed, op.round, op.index)
            for nudge in op.nudges:
                size = random.Random(repr(("size", recipe.seed, nudge.round, nudge.index))).random()
                noise += nudge.radius * size * gauss("nudge", recipe.seed, nudge.round, nudge.index)
            path += (op.to - t) ** 0.5 * noise
            t = op.to
            ends.append((t, path))
        elif isinstance(op, Renoise):
            before = [end for end in ends if end[0] <= op.to]
            (early, low), (late, high) = before[-1], ends[len(before)]
            share = (op.to - early) / (late - early)
            bridge = (share * (1 - share) * (late - early)) ** 0.5 * gauss("bridge", recipe.seed, op.round, op.index)
            t, path = op.to, low + share * (high - low) + bridge
            ends = [*before, (t, path)]
    return start / 2 + path


def mean_best(name: str, nfe: int, seeds: int = 40, **options: object) -> tuple[float, float]:
    """Mean over seeds of the best score that a search finds, and its standard error; 10 steps of one NFE."""
    bests = []
    for seed in range(seeds):
        sampler = {"method": "euler_maruyama", "steps": 10}
        run = start(request(name, nfe=nfe, seed=seed, sampler=sampler, search={"algorithm": name, **options}))
        while proposals := run.ask():
            run.tell(evaluate(proposals, run.phase, score))
        bests.append(run.result().images[0].score)
    return statistics.mean(bests), statistics.stdev(bests) / seeds**0.5


def gain(name: str, nfe: int = 320, **options: object) -> float:
    """By how many standard errors a search finds better than random search of the same NFE."""
    (ours, error), (random_search, other) = mean_best(name, nfe, **options), mean_best("random", nfe)
    return float((ours - random_search) / (error**2 + other**2) ** 0.5)
