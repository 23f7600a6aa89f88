"""The losses of SiT (Ma et al. 2024, arXiv 2401.08740, section 2 and appendix; the reference's transport.py)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.interpolants import Interpolant, like

#: The reference's distances from a singular end (train_eps).
VP_EPS = 1e-5
EPS = 1e-3


def train_interval(interpolant: str, prediction: str, eps: float | None = None) -> tuple[float, float]:
    """The times that are trained on.

    [0, 1] for velocity on Linear and GVP. Otherwise `eps` is kept from the singular ends: t=1 on VP (1e-5 unless
    given), both on Linear and GVP (1e-3).
    """
    if interpolant == "VP":
        return 0.0, 1 - (VP_EPS if eps is None else eps)
    if prediction == "velocity":
        return 0.0, 1.0
    eps = EPS if eps is None else eps
    return eps, 1 - eps


def flow_loss(
    prediction: Tensor,
    data: Tensor,
    noise: Tensor,
    t: Tensor,
    *,
    interpolant: Interpolant,
    kind: str,
    weighting: str = "none",
) -> Tensor:
    """Weighted mean square error of each sample.

    velocity: |v - (d_alpha x + d_sigma e)|^2. noise: w |E - e|^2. score: w |sigma s + e|^2 (so that both are the same
    loss, as s = -E / sigma). With lambda the noise rate, w is 1 (`none`), lambda^2 (`velocity`: the loss is that of the
    velocity that the score gives) or lambda / sigma (`likelihood`: the maximum-likelihood weighting of the SBDM
    diffusion, arXiv 2101.09258).

    Args:
        prediction: `[B, ...]`, the network's at x_t.
        data, noise: `[B, ...]`, what x_t was made of.
        t: `[B]`, within `train_interval`.
        interpolant: the path.
        kind: what the network predicts: `velocity`, `score` or `noise`.
        weighting: `none`, `velocity` or `likelihood`.

    Returns:
        `[B]`, means over all but the first dimension.

    Raises:
        ValueError: no such kind or weighting.
    """
    if kind == "velocity":
        return mean_square(prediction - interpolant.velocity_target(data, noise, t))
    if kind not in ("score", "noise"):
        raise ValueError(f"there are losses for velocity, score and noise, not for {kind!r}")
    error = like(interpolant.sigma(t), data) * prediction + noise if kind == "score" else prediction - noise
    return _weight(interpolant, t, weighting) * mean_square(error)


def _weight(interpolant: Interpolant, t: Tensor, weighting: str) -> Tensor:
    if weighting == "none":
        return torch.ones_like(t)
    if weighting == "velocity":
        return (interpolant.drift_variance(t) / interpolant.sigma(t)).square()
    if weighting == "likelihood":
        return interpolant.drift_variance(t) / interpolant.sigma(t).square()
    raise ValueError(f"weighting must be none, velocity or likelihood, not {weighting!r}")


def mean_square(error: Tensor) -> Tensor:
    """`[B, ...]` to `[B]`."""
    return error.square().flatten(1).mean(1)


def contrast(prediction: Tensor, target: Tensor) -> Tensor:
    """How far predictions are from the next row's target: a scalar, to be made large.

    Contrastive flow matching (arXiv 2506.05350, equation 5), the negative being the neighbour in the batch.

    Args:
        prediction, target: `[B, ...]`.
    """
    return F.mse_loss(prediction, target.roll(1, 0))


def alignment(projected: Tensor, features: Tensor) -> Tensor:
    """Mean cosine between tokens and features: a scalar in [-1, 1], to be made large (REPA, arXiv 2410.06940).

    Args:
        projected: `[B, N, F]`, a block's tokens after the projection.
        features: `[B, N, F]`, of the clean data; their mean over the batch and the grid is subtracted, as it would
            otherwise dominate the cosine.
    """
    projected, features = projected.float(), features.float()
    return F.cosine_similarity(projected, features - features.mean((0, 1)), dim=-1).mean()
