"""Diffusion coefficients w(t) of the reverse SDE dx = (v + w score) dt + sqrt(2 w) dW (arXiv 2401.08740, Table 2).

Every w gives the same marginals when the score is exact; they differ in how errors are forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sitsearch.models.interpolants import Interpolant

#: Where sigma is smaller than this, w / sigma is taken as if it were this: the distance that the reference keeps from
#: an end point that it cannot evaluate. Only a Heun step that ends at t=1 comes so near.
SIGMA_FLOOR = 1e-3

Form = Callable[[Interpolant, Tensor, float], Tensor]

DIFFUSIONS: dict[str, Form] = {
    "constant": lambda interpolant, t, norm: norm * torch.ones_like(t),
    "SBDM": lambda interpolant, t, norm: norm * interpolant.drift_variance(t),
    "sigma": lambda interpolant, t, norm: norm * interpolant.sigma(t),
    "linear": lambda interpolant, t, norm: norm * (1 - t),
    "decreasing": lambda interpolant, t, norm: 0.25 * (norm * torch.cos(math.pi * t) + 1) ** 2,
    "increasing-decreasing": lambda interpolant, t, norm: norm * torch.sin(math.pi * t) ** 2,
}


def diffusion(form: str, interpolant: Interpolant, t: Tensor, norm: float = 1.0) -> Tensor:
    """w(t), in the shape of `t`; not below 0 (rounding can take sigma below it at t=1).

    Args:
        form: one of `DIFFUSIONS`.
        interpolant: the path, for the forms `SBDM` and `sigma`.
        t: times in [0, 1].
        norm: factor, at least 0; `decreasing` has it inside the square.

    Raises:
        ValueError: no such form.
    """
    if form not in DIFFUSIONS:
        raise ValueError(f"no diffusion form named {form!r}; there are {', '.join(DIFFUSIONS)}")
    return DIFFUSIONS[form](interpolant, t, norm).clamp(min=0)


def noise_weight(form: str, interpolant: Interpolant, t: Tensor, norm: float = 1.0) -> Tensor:
    """w(t) / sigma(t), by which the noise prediction enters the drift: w score = -(w / sigma) E.

    The limit at t=1 is taken where sigma cancels (`sigma`, `SBDM`, and `linear` on Linear); elsewhere sigma is kept
    at `SIGMA_FLOOR` or more.

    Raises:
        ValueError: no such form.
    """
    if form == "sigma" or (form == "linear" and interpolant.name == "Linear"):
        return torch.full_like(t, norm)
    if form == "SBDM":
        return norm * interpolant.noise_rate(t)
    return diffusion(form, interpolant, t, norm) / interpolant.sigma(t).clamp(min=SIGMA_FLOOR)
