"""log p(x) of a flow model by the instantaneous change of variables along its probability-flow ODE.

With x_t the trajectory that ends in x (Chen et al. 2018, arXiv 1806.07366, theorem 1; Song et al. 2021, arXiv
2011.13456, section 4.3 and appendix D.2; SiT, arXiv 2401.08740, appendix):

    log p_t1(x_t1) = log N(x_t0; 0, I) - integral over [t0, t1] of div v(x_t, t) dt

The divergence is the mean of e^T (dv/dx) e over probes e with covariance I (Hutchinson; FFJORD, arXiv 1810.01367,
equation 7), each one vector-Jacobian product. A probe is kept for the whole trajectory, as FFJORD does, so that what is
integrated is smooth; averaged over probes, log p is unbiased up to the error of the integrator.

Where an end point is singular a distance is kept from it (see models/inversion.py), and what is computed is the density
of x_t1, whose distance from the data is `END`; the state at t0 is taken to be N(0, I), as the state at t=0 is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sitsearch.models.field import Field
from sitsearch.models.interpolants import Interpolant
from sitsearch.models.inversion import fixed_step, integrate_backwards, velocity_of

Trace = Literal["rademacher", "gaussian", "exact"]

#: Second word of the probes' Philox key (models/noise.py): far from the purposes of a recipe's draws.
PROBES = 2**63


@dataclass(frozen=True)
class LogLikelihood:
    """What `log_likelihood` found.

    Attributes:
        log_p: `[B]` float64, nats, of the density with respect to x in the model's own units.
        bits_per_dim: `[B]` float64; see the argument `bin_width`.
        noise: `[B, ...]`, the state at t0: what `invert` gives.
        nfe: evaluations of the field by each row.
        gradients: vector-Jacobian products by each row; each costs about two evaluations.
    """

    log_p: Tensor
    bits_per_dim: Tensor
    noise: Tensor
    nfe: int
    gradients: int


def log_likelihood(
    field: Field,
    x: Tensor,
    *,
    interpolant: Interpolant | str = "Linear",
    prediction: str = "velocity",
    method: str = "heun",
    steps: int = 50,
    probes: int = 1,
    seed: int = 0,
    trace: Trace = "rademacher",
    shift: float = 1.0,
    t0: float | None = None,
    t1: float | None = None,
    bin_width: float = 1.0,
) -> LogLikelihood:
    """log p of each row of `x`.

    Args:
        field: the prediction, differentiable with respect to x, one row independent of the others; see
            `sitsearch.models.field.differentiable` for that of a SiT.
        x: `[B, ...]`, data. Images of 8 bits are discrete: add uniform noise of one level's width first.
        interpolant, prediction, method, steps, shift, t0, t1: see `sitsearch.models.inversion.invert`.
        probes: probes a row, at least 1; the standard error falls with their square root.
        seed: of the probes, in [0, 2^64): row i's are a function of the seed and i only.
        trace: distribution of the probes; `rademacher` (+-1) has the least variance. `exact` takes the unit vectors
            instead: as many products as x has dimensions.
        bin_width: width of one level of the data in x's units. Bits are counted for levels: 1/127.5 for 8-bit images
            in [-1, 1], as published figures do; 1 leaves the density as it is.

    Raises:
        ValueError: a value is out of its range, or the field does not depend on x.
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, not {probes}")
    if not bin_width > 0:
        raise ValueError(f"bin_width must be positive, not {bin_width}")
    sampler = fixed_step(method, steps, interpolant, prediction, shift, t0, t1)
    velocity = velocity_of(field, sampler)
    dims = x[0].numel()
    # Tensors made in inference mode cannot take part in gradients; copies made outside it can.
    with torch.inference_mode(False):
        x = x.detach().clone()
        directions = _directions(x, trace, probes, seed)

        def slopes(x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
            v, products = _velocity_and_products(velocity, x, t, directions)
            return v, products if trace == "exact" else products / len(directions)

        # The second quantity goes from 0 at t1 to minus the integral at t0.
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        noise, minus_integral = integrate_backwards(sampler, slopes, (x, zero))
    squares = noise.double().flatten(1).square().sum(1)
    log_p = -0.5 * (squares + dims * math.log(2 * math.pi)) + minus_integral
    return LogLikelihood(
        log_p=log_p,
        bits_per_dim=-log_p / (dims * math.log(2)) - math.log2(bin_width),
        noise=noise,
        nfe=sampler.nfe,
        gradients=sampler.nfe * len(directions),
    )


def _velocity_and_products(velocity: Field, x: Tensor, t: Tensor, directions: list[Tensor]) -> tuple[Tensor, Tensor]:
    """v `[B, ...]` and the sum over the directions of e^T (dv/dx) e, `[B]` float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, t)
        if not v.requires_grad:
            raise ValueError("the field does not depend on x, or was evaluated without gradients")
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for index, e in enumerate(directions):
            (product,) = torch.autograd.grad(v, x, grad_outputs=e, retain_graph=index + 1 < len(directions))
            total += (product * e).double().flatten(1).sum(1)
    return v.detach(), total


def _directions(x: Tensor, trace: Trace, probes: int, seed: int) -> list[Tensor]:
    """The vectors `[B, ...]` that the Jacobian is multiplied with."""
    if trace == "exact":
        units = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        return [unit.reshape(1, *x.shape[1:]).expand_as(x) for unit in units]
    if trace not in ("rademacher", "gaussian"):
        raise ValueError(f"trace must be rademacher, gaussian or exact, not {trace!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2^64), not {seed}")
    rows = np.stack([_probes(seed, row, (probes, *x.shape[1:])) for row in range(len(x))], axis=1)
    drawn = torch.from_numpy(rows).to(x.device, x.dtype)
    return list(drawn.unbind(0) if trace == "gaussian" else torch.where(drawn < 0, -1.0, 1.0).to(x.dtype).unbind(0))


def _probes(seed: int, row: int, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) numbers, as models/noise.py draws them."""
    key, counter = np.array([seed, PROBES], dtype=np.uint64), np.array([0, row, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(shape, dtype=np.float32)
