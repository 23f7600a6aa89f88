"""The Frechet distance of Gaussians, for sets of any size."""

from __future__ import annotations

import torch
from torch import Tensor


class FrechetReference:
    """Reference statistics, ready to be measured against (arXiv 1706.08500, equation 6).

    d^2 = |m - mu|^2 + tr(C) + tr(S) - 2 tr((C S)^(1/2)), for a set of mean m and covariance C. The eigenvalues of C S
    are those of the symmetric R C R, R = S^(1/2), so no square root of a product is taken and the result is real.

    Args:
        mu: `[D]` mean.
        sigma: `[D, D]` covariance.

    Raises:
        ValueError: the shapes do not fit, or `sigma` is not symmetric.
    """

    def __init__(self, mu: Tensor, sigma: Tensor) -> None:
        mu, sigma = mu.double(), sigma.double()
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
            raise ValueError(f"mu must be [D] and sigma [D, D], not {list(mu.shape)} and {list(sigma.shape)}")
        if not torch.allclose(sigma, sigma.T, rtol=1e-5, atol=1e-8):
            raise ValueError("sigma must be symmetric")
        self.mu, self.sigma = mu, (sigma + sigma.T) / 2
        values, vectors = torch.linalg.eigh(self.sigma)
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(self, features: Tensor, *, prior: float = 0.0) -> float:
        """Squared Frechet distance of a set to the reference.

        With `prior` 0 this is FID as libraries define it (covariance with n - 1), and it exists for every n >= 1: the
        covariance of one image is taken as 0. Small sets have singular covariances, so their distance is far above that
        of a large sample of the same distribution, and greedy choice first of all seeks the mean. A `prior` of p > 0
        judges the set as a mixture: a part p / (p + n) of the reference itself, the rest of the set.

        Args:
            features: `[n, D]`, n >= 1.
            prior: weight of the reference, in images.

        Raises:
            ValueError: the shape does not fit, or the set is empty.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mu) or not len(features):
            raise ValueError(f"features must be [n, {len(self.mu)}] with n >= 1, not {list(features.shape)}")
        features = features.double()
        n, mean = len(features), features.mean(dim=0)
        centred = (features - mean) / max(n - 1, 1) ** 0.5  # covariance = centred^T centred
        if prior > 0:
            share = prior / (prior + n)
            gap = self.mu - mean
            covariance = share * self.sigma + (1 - share) * (centred.T @ centred)
            covariance = covariance + share * (1 - share) * torch.outer(gap, gap)
            mean = mean + share * gap
            trace, product = covariance.trace(), self.root @ covariance @ self.root
        else:
            trace = centred.square().sum()
            rooted = centred @ self.root
            # The smaller of the two Gram matrices has the same eigenvalues, but for zeros
            product = rooted @ rooted.T if n < len(self.mu) else rooted.T @ rooted
        shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
        return float((mean - self.mu).square().sum() + trace + self.sigma.trace() - 2 * shared)
