"""The FID oracle: the candidate with which the set so far comes closest to reference statistics."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadWeights
from sitsearch.models.verifiers.base import (
    UNBOUNDED,
    FeatureNetwork,
    SetVerifier,
    Verifier,
    Weights,
    check_count,
    check_sets,
)
from sitsearch.models.verifiers.frechet import FrechetReference


class FidOracle(Verifier, SetVerifier):
    """Frechet distance of the set so far plus one candidate to reference statistics, negated (arXiv 2501.09732, 3.1).

    The paper takes greedily the candidate of least distance. Alone (`score`), an image is a set of one.

    Args:
        weights: npz file with `mu` `[D]` and `sigma` `[D, D]`, as ADM's and EDM's reference files have, or a dict of
            both.
        device: where it runs.
        network: whose features are compared.
        prior: see `FrechetReference.distance`, which also says what a small set means.

    Raises:
        BadWeights: the statistics cannot be read.
    """

    range = (UNBOUNDED[0], 0.0)

    def __init__(
        self,
        weights: Weights,
        *,
        network: FeatureNetwork,
        prior: Annotated[float, Field(ge=0)] = 0.0,
        device: str = "cpu",
    ) -> None:
        self.network, self.prior, self.device = network, prior, device
        self.reference = _reference(weights)

    def features(self, images: Tensor) -> Tensor:
        """See `SetVerifier.features`."""
        return self.network.features(images)

    def distances(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        """FID of the set with each candidate added alone, `[B]` float64; arguments as in `SetVerifier.set_scores`."""
        check_sets(chosen, candidates)
        sets = (torch.cat([chosen, candidate[None]]) for candidate in candidates)
        return torch.tensor([self.reference.distance(each, prior=self.prior) for each in sets], dtype=torch.float64)

    def set_scores(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        """`distances`, negated; see `SetVerifier.set_scores`."""
        return -self.distances(chosen, candidates)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """Each image as a set of one; see `Verifier.score`."""
        features = self.features(images)
        check_count(conditions, len(images))
        return self.set_scores(features[:0], features).float()


def _reference(weights: Weights) -> FrechetReference:
    try:
        if isinstance(weights, Mapping):
            return FrechetReference(weights["mu"], weights["sigma"])
        with np.load(weights, allow_pickle=False) as stats:
            return FrechetReference(torch.from_numpy(stats["mu"]), torch.from_numpy(stats["sigma"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadWeights(f"cannot read reference statistics: {error}") from error
