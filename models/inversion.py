"""From data to noise along the probability-flow ODE: the samplers of fixed step, run backwards in time.

The ODE dx/dt = v(x, t) of a flow model has one trajectory through every point, so an image belongs to one noise
(DDIM inversion, Song et al. 2021, arXiv 2010.02502, section 4.3; SiT, arXiv 2401.08740, equation 5). A method of order
p finds it, and sampling from it gives the image back, to an error of h^p.

End points are those of the sampler of the same method: t=1 and t=0 for velocity on Linear and GVP. Otherwise the field
is singular at an end (VP and every score at t=1; a score or a noise prediction on Linear and GVP also at t=0), and a
distance of `END` is kept from it, where the image stands for x_t and x_t for the noise, as it does when sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from sitsearch.models.field import Field, without_gradients
from sitsearch.models.interpolants import Interpolant
from sitsearch.models.samplers import SAMPLERS, make_sampler, time_grid
from sitsearch.models.samplers.base import rows_at
from sitsearch.models.samplers.runge_kutta import RungeKutta, weighted

FIXED_STEP = tuple(name for name, method in SAMPLERS.items() if not (method.stochastic or method.adaptive))


@dataclass(frozen=True)
class Inversion:
    """What `invert` found.

    Attributes:
        noise: `[B, ...]`, the state at `t`: the noise, if `t` is the sampler's start.
        t: the time that was reached.
        nfe: evaluations of the field by each row.
    """

    noise: Tensor
    t: float
    nfe: int


def invert(
    field: Field,
    x: Tensor,
    *,
    interpolant: Interpolant | str = "Linear",
    prediction: str = "velocity",
    method: str = "heun",
    steps: int = 50,
    shift: float = 1.0,
    t0: float | None = None,
    t1: float | None = None,
) -> Inversion:
    """The noise that the sampler of the same arguments turns into `x`.

    Args:
        field: the (guided) prediction; see models/field.py for that of a generator. Gradients are not needed.
        x: `[B, ...]`, data.
        interpolant, prediction: what the field was trained on and predicts; see `Spec`.
        method: one of `FIXED_STEP`.
        steps: steps; their grid is the sampler's, `shift` included, walked backwards.
        t0: where to stop, in [0, 1); between 0 and 1 it gives the state that a sampler with this t0 goes on from, to
            change an image and keep its layout. None is the sampler's start.
        t1: where `x` is taken to stand, in (t0, 1]; None is the sampler's end.

    Raises:
        ValueError: the method is adaptive, stochastic or unknown, or another value is out of its range.
    """
    sampler = fixed_step(method, steps, interpolant, prediction, shift, t0, t1)
    velocity = velocity_of(without_gradients(field), sampler)
    (noise,) = integrate_backwards(sampler, lambda x, t: (velocity(x, t),), (x.detach(),))
    return Inversion(noise=noise, t=sampler.spec.ode_interval()[0], nfe=sampler.nfe)


def fixed_step(
    method: str,
    steps: int,
    interpolant: Interpolant | str,
    prediction: str,
    shift: float,
    t0: float | None,
    t1: float | None,
) -> RungeKutta:
    """The Runge-Kutta sampler of that name.

    Raises:
        ValueError: it is not one of fixed step, or a value is out of its range.
    """
    if method not in FIXED_STEP:
        raise ValueError(f"method must be one of {', '.join(FIXED_STEP)}, not {method!r}")
    sampler = make_sampler(
        method, steps=steps, interpolant=interpolant, prediction=prediction, shift=shift, t0=t0, t1=t1
    )
    assert isinstance(sampler, RungeKutta)
    return sampler


def velocity_of(field: Field, sampler: RungeKutta) -> Field:
    """The velocity that the field's prediction stands for."""
    spec = sampler.spec
    return lambda x, t: spec.interpolant.convert(field(x, t), x, t, spec.prediction, "velocity")


def integrate_backwards(
    sampler: RungeKutta, slopes: Callable[[Tensor, Tensor], tuple[Tensor, ...]], values: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Carry several quantities from the sampler's t1 to its t0, on its grid and by its tableau.

    Args:
        sampler: gives the method and the grid.
        slopes: the quantities' derivatives with respect to time at a state `[B, ...]` and time `[B]`; they depend on
            the first quantity, the state, only.
        values: the quantities at t1, each `[B, ...]`.

    Returns:
        The quantities at t0.
    """
    tableau, spec = sampler.tableau, sampler.spec
    grid = time_grid(*spec.ode_interval(), spec.steps, spec.shift, values[0].dtype).flip(0)
    for t, to in pairwise(grid):
        h, state = float(to - t), values[0]
        stages: list[tuple[Tensor, ...]] = []
        for node, row in zip(tableau.nodes, tableau.matrix, strict=True):
            query = state + h * weighted(row, tuple(stage[0] for stage in stages)) if stages else state
            stages.append(slopes(query, rows_at(to if node == 1 else t + node * h, state)))
        by_value = zip(values, zip(*stages, strict=True), strict=True)
        values = tuple(value + h * weighted(tableau.weights, ks) for value, ks in by_value)
    return values
