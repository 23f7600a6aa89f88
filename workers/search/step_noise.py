"""The noise that a step of a stochastic sampler adds: the numbers of models/diffusion.py and models/samplers.

An SDE's step of size h adds sqrt(2 w(t) h) (arXiv 2401.08740, equation 6), w being the form that the request names. A
step of `glass` is drawn from p(x' | x), which given the data has the standard deviation sigma' sqrt(1 - rho^2), rho
being as by DDPM where the request names none (arXiv 2509.25170). Where it names no path, that is Linear.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.sampling import Sampling

#: Beta of the path VP, at noise and at data.
VP_BETA = (20.0, 0.1)


class Coefficients(NamedTuple):
    """Of a path at some time: alpha, sigma, and how fast alpha grows, d log alpha / dt."""

    alpha: float
    sigma: float
    growth: float


def coefficients(path: str | None, t: float) -> Coefficients:
    """Those of `path`, Linear if None, at `t` in (0, 1)."""
    if path == "GVP":
        angle = t * math.pi / 2
        return Coefficients(math.sin(angle), math.cos(angle), math.pi / 2 / math.tan(angle))
    if path == "VP":
        first, last = VP_BETA
        log_alpha = -((1 - t) ** 2) * (first - last) / 4 - (1 - t) * last / 2
        growth = ((1 - t) * (first - last) + last) / 2
        return Coefficients(math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha)), growth)
    return Coefficients(t, 1 - t, 1 / t)


def diffusion(choice: SamplerChoice, t: float) -> float:
    """w at `t` in (0, 1): the request's form of it, and its norm."""
    at, norm = coefficients(choice.path, t), choice.norm
    if choice.diffusion == "SBDM":  # sigma (sigma d log alpha / dt - d sigma / dt)
        falling = {"GVP": math.pi / 2 * at.alpha, "VP": at.alpha**2 * at.growth / at.sigma}.get(choice.path or "", 1.0)
        return norm * at.sigma * (at.sigma * at.growth + falling)
    forms = {
        "constant": norm,
        "sigma": norm * at.sigma,
        "linear": norm * (1 - t),
        "decreasing": 0.25 * (norm * math.cos(math.pi * t) + 1) ** 2,
        "increasing-decreasing": norm * math.sin(math.pi * t) ** 2,
    }
    return forms[choice.diffusion]


def step_noise(sampling: Sampling, t: float, to: float) -> float:
    """Standard deviation of the noise that a step from `t` to `to`, both in (0, 1), adds."""
    choice = sampling.choice
    if not sampling.method.inner:
        return math.sqrt(2 * diffusion(choice, t) * (to - t))
    before, after = coefficients(choice.path, t), coefficients(choice.path, to)
    rho = choice.rho
    if rho is None:
        rho = min(1.0, before.alpha * after.sigma / (before.sigma * after.alpha))
    return after.sigma * math.sqrt(1 - rho**2)
