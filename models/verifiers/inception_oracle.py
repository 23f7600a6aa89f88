"""The Inception Score oracle: the asked class's probability alone, the Inception Score of a set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import ClassNetwork, Need, SetVerifier, Verifier, check_sets, class_indices


def inception_score(log_probabilities: Tensor) -> float:
    """exp(mean over images of KL(p(y | x) || p(y))), one split (arXiv 1606.03498, section 4).

    Args:
        log_probabilities: `[n, K]`, n >= 1.
    """
    log_p = log_probabilities.double()
    marginal = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - marginal)).sum(dim=1).mean().exp())


class InceptionOracle(Verifier, SetVerifier):
    """Probability of the asked class, the paper's "Oracle IS"; of a set, its Inception Score (arXiv 2501.09732, 3.1).

    Args:
        weights: none of its own.
        device: where it runs.
        network: whose class probabilities are used.
    """

    needs: frozenset[Need] = frozenset({"class"})
    range = (0.0, 1.0)

    def __init__(self, weights: None = None, *, network: ClassNetwork, device: str = "cpu") -> None:
        self.network, self.device = network, device

    def features(self, images: Tensor) -> Tensor:
        """Log-probabilities `[B, K]`; see `SetVerifier.features`."""
        return self.network.log_probabilities(images)

    def set_scores(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        """Inception Score of the set with each candidate added alone, in [1, K]; see `SetVerifier.set_scores`."""
        check_sets(chosen, candidates)
        sets = (torch.cat([chosen, candidate[None]]) for candidate in candidates)
        return torch.tensor([inception_score(each) for each in sets], dtype=torch.float64)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """Probability of the asked class; see `Verifier.score`."""
        log_p = self.network.log_probabilities(images)
        classes = class_indices(conditions, len(images), log_p.shape[1])
        return log_p.gather(1, classes[:, None]).squeeze(1).exp()
