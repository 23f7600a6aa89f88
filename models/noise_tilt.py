"""A reward's gradient in the noise of a stochastic step (NoiseTilt, arXiv 2606.18066).

The step's mean stays as it is, and its noise becomes sqrt(rho) W(g) + sqrt(1 - rho) eps: W makes of a gradient g what a
draw of N(0, I) could be, so that the states stay where the network was trained. As in the paper, W projects: a set of
numbers is sorted, each is moved into the interval in which the Gaussian's order statistic of its rank lies with a
probability of 99.99 %, and all go back to their places; by turns for all numbers of a state, for tiles of it and for
its frequencies. Which domains, their order and the normal approximation of the intervals are our own choice.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: Side of a tile.
TILE = 8
#: Rounds of projections.
ROUNDS = 2
#: Two-sided 99.99 % quantile of N(0, 1).
REACH = 3.8906


def tilted(noise: Tensor, gradient: Tensor, share: float | Tensor) -> Tensor:
    """The noise of a step, `share` of its variance taken by the gradient.

    Args:
        noise: `[B, C, H, W]`, of N(0, I).
        gradient: `[B, C, H, W]`, at any scale; a row of zeros leaves its noise as it is.
        share: rho, in [0, 1]; of all rows, or `[B]` of each.
    """
    there = gradient.flatten(1).any(1)[:, None, None, None]
    rho = torch.as_tensor(share, dtype=noise.dtype, device=noise.device).view(-1, 1, 1, 1)
    mixed = rho.sqrt() * whitened(gradient) + (1 - rho).sqrt() * noise
    return torch.where(there, mixed, noise)


def whitened(gradient: Tensor) -> Tensor:
    """W(g): `[B, C, H, W]` gradients at any scale to what draws of N(0, I) could be; rows of zeros to zeros.

    A row's bits do not depend on the others.
    """
    x = (
        gradient
        / gradient.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)[:, None, None, None]
    )
    for _ in range(ROUNDS):
        x = _frequencies(_projected(_frequencies(x).flatten(1)).view_as(x))
        x = _tiled(x)
        x = _projected(x.flatten(1)).view_as(x)
    return torch.where(gradient.flatten(1).any(1)[:, None, None, None], x, torch.zeros_like(x))


def _frequencies(x: Tensor) -> Tensor:
    """The orthonormal Hartley transform of each state, which is its own inverse."""
    transformed = torch.fft.fftn(x, dim=(1, 2, 3), norm="ortho")
    return transformed.real - transformed.imag


def _tiled(x: Tensor) -> Tensor:
    """Each tile projected by itself; states whose sides are no multiples of a tile's are left as they are."""
    batch, channels, height, width = x.shape
    if height % TILE or width % TILE:
        return x
    down, right = height // TILE, width // TILE
    tiles = x.view(batch, channels, down, TILE, right, TILE).permute(0, 2, 4, 1, 3, 5)
    projected = _projected(tiles.flatten(3).flatten(0, 2)).view(tiles.shape)
    return projected.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def _projected(rows: Tensor) -> Tensor:
    """`[R, n]` with the numbers of each row moved to where the order statistics of n draws of N(0, 1) lie."""
    ordered, places = rows.sort(dim=1, stable=True)
    low, high = (bound.to(rows.device, rows.dtype) for bound in _bounds(rows.shape[1]))
    return torch.empty_like(rows).scatter_(1, places, ordered.clamp(low, high))


@lru_cache(maxsize=64)
def _bounds(count: int) -> tuple[Tensor, Tensor]:
    """The intervals of the order statistics, `[n]` each.

    The k-th of n uniform draws has mean p = k / (n + 1) and variance p (1 - p) / (n + 2).
    """
    p = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
    reach = REACH * (p * (1 - p) / (count + 2)).sqrt()
    least = 1e-4 / count  # about the quantile of the extremes, whose distribution is not normal
    low, high = (p - reach).clamp(min=least), (p + reach).clamp(max=1 - least)
    return torch.special.ndtri(low), torch.special.ndtri(high)
