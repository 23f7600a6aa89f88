"""What verifiers say of pictures: each by itself, or by the set that it would join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import FeatureNetwork, SetVerifier, Verifier
from sitsearch.models.verifiers.scoring import Scorer


def judges_sets(verifier: object) -> TypeGuard[SetVerifier]:
    """The verifier judges a candidate by the set of images that it would join (see `SetVerifier`)."""
    return hasattr(verifier, "set_scores")


def has_features(verifier: object) -> TypeGuard[FeatureNetwork]:
    """The verifier can say where pictures lie, and not only how good they are (see `FeatureNetwork`)."""
    return hasattr(verifier, "features")


def has_gradients(verifier: object) -> TypeGuard[Verifier]:
    """The verifier can guide (see `Verifier.differentiable_score`)."""
    return getattr(verifier, "differentiable", False)


def pixels(pictures: Tensor) -> Tensor:
    """`[N, H, W, 3]` uint8 to `[N, 3, H, W]` float32 in [0, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def set_scores(verifier: SetVerifier, pictures: Tensor, chosen: Tensor | None) -> tuple[list[float], Tensor]:
    """Scores of the set so far with each picture added alone, and the pictures' features `[N, D]`.

    Args:
        verifier: a verifier of sets.
        pictures: `[N, H, W, 3]` uint8.
        chosen: `[n, D]`, features of the set so far; None for the empty one.
    """
    features = verifier.features(pixels(pictures))
    scores = verifier.set_scores(features[:0] if chosen is None else chosen, features)
    return scores.tolist(), features


#: Height and width of the pictures that stand for features where a verifier has none.
SMALL = 8


def telling_features(verifier: object, pictures: Tensor, *, batch: int) -> list[list[float]]:
    """What tells pictures apart, `[N, D]`: the verifier's features at length 1, or averages of `SMALL` x `SMALL` parts.

    Args:
        verifier: any; see `has_features`.
        pictures: `[N, H, W, 3]` uint8.
        batch: pictures of one call of the verifier, at most.
    """
    images = pixels(pictures)
    if has_features(verifier):
        rows = torch.cat([verifier.features(part) for part in images.split(batch)])
        return F.normalize(rows.float(), dim=1).tolist()
    return F.adaptive_avg_pool2d(images, SMALL).flatten(1).tolist()


def scores_by_name(
    scorers: Mapping[str, Scorer],
    names: Sequence[str],
    pictures: Tensor,
    conditions: Sequence[Condition],
    previews: Tensor | None = None,
) -> list[dict[str, float]]:
    """Scores of pictures by several verifiers.

    Args:
        scorers: by the verifiers' names.
        names: of those that are asked.
        pictures: `[N, H, W, 3]` uint8.
        conditions: what was asked of each.
        previews: `[N, H, W, 3]` uint8, for verifiers that need them.
    """
    columns = [scorers[name].score(pictures, conditions, previews=previews) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
