"""Which samplers there are: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sitsearch.models.interpolants import Interpolant
from sitsearch.models.samplers import runge_kutta as rk
from sitsearch.models.samplers.base import Sampler, Spec
from sitsearch.models.samplers.dopri5 import STAGES, Dopri5
from sitsearch.models.samplers.glass import Glass
from sitsearch.models.samplers.sde import Stochastic


@dataclass(frozen=True)
class Method:
    """How to make a sampler, and what it is.

    Attributes:
        build: the sampler of a spec.
        evaluations_per_step: field evaluations of one step (of one attempt, if adaptive).
        stochastic: it draws noise between steps.
        adaptive: it chooses its steps itself.
        ends: its last step, of one evaluation, adds no noise.
        inner: a step takes `Spec.inner` times as many evaluations.
    """

    build: Callable[[Spec], Sampler]
    evaluations_per_step: int
    stochastic: bool = False
    adaptive: bool = False
    ends: bool = False
    inner: bool = False


SAMPLERS: dict[str, Method] = {
    "euler": Method(lambda spec: rk.RungeKutta(rk.EULER, spec), 1),
    "midpoint": Method(lambda spec: rk.RungeKutta(rk.MIDPOINT, spec), 2),
    "heun": Method(lambda spec: rk.RungeKutta(rk.HEUN, spec), 2),
    "heun3": Method(lambda spec: rk.RungeKutta(rk.HEUN3, spec), 3),
    "rk4": Method(lambda spec: rk.RungeKutta(rk.RK4, spec), 4),
    "dopri5": Method(Dopri5, STAGES, adaptive=True),
    "euler_maruyama": Method(lambda spec: Stochastic(spec, heun=False), 1, stochastic=True, ends=True),
    "heun_sde": Method(lambda spec: Stochastic(spec, heun=True), 2, stochastic=True, ends=True),
    "glass": Method(Glass, 1, stochastic=True, inner=True),
}


def method_named(name: str) -> Method:
    """The sampling method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SAMPLERS:
        raise ValueError(f"no sampler named {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def evaluations_per_step(method: str) -> int:
    """Field evaluations of one step. A trajectory's exact number is `make_sampler(...).nfe`.

    Raises:
        ValueError: no such method.
    """
    return method_named(method).evaluations_per_step


def make_sampler(
    method: str,
    *,
    steps: int,
    interpolant: Interpolant | str = "Linear",
    prediction: str = "velocity",
    **options: Any,
) -> Sampler:
    """The sampler `method` with `steps` steps.

    Args:
        method: one of `SAMPLERS`.
        steps, interpolant, prediction: see `Spec`.
        options: the other fields of `Spec`.

    Raises:
        ValueError: no such method, or a value is out of its range.
        TypeError: `Spec` has no field of an option's name.
    """
    return method_named(method).build(Spec.of(steps=steps, interpolant=interpolant, prediction=prediction, **options))
