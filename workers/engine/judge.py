"""What verifiers say of a round's images: each image by itself, or by the set that it would join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import SetVerifier, Verifier
from sitsearch.models.verifiers.scoring import Scorer


def judges_sets(verifier: Verifier) -> bool:
    """The verifier judges a candidate by the set of images that it would join (see `SetVerifier`)."""
    return hasattr(verifier, "set_scores")


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


class Judge:
    """Verifiers in this process, with the set so far for one that judges sets.

    Args:
        verifiers: by name.
        batch: images of one call of a verifier.
    """

    def __init__(self, verifiers: Mapping[str, Verifier], *, batch: int) -> None:
        self._scorers = {name: Scorer(verifier, batch=batch) for name, verifier in verifiers.items()}
        self._chosen: Tensor | None = None
        self._features: dict[str, Tensor] = {}

    def scores(
        self,
        names: Sequence[str],
        ids: Sequence[str],
        pictures: Tensor,
        conditions: Sequence[Condition],
        *,
        previews: Tensor | None = None,
        sets: bool = False,
    ) -> list[dict[str, float]]:
        """Scores of pictures by several verifiers.

        Args:
            names: the verifiers.
            ids: the candidates' ids.
            pictures: `[N, H, W, 3]` uint8.
            conditions: what was asked of each.
            previews: `[N, H, W, 3]` uint8, for verifiers that need them.
            sets: fill a set with `choose`: a verifier of sets judges the set so far with each picture added.
        """
        columns = []
        for name in names:
            scorer = self._scorers[name]
            verifier = scorer.verifier
            if sets and judges_sets(verifier):
                scores, features = set_scores(verifier, pictures, self._chosen)  # type: ignore[arg-type]
                self._features = dict(zip(ids, features, strict=True))
            else:
                scores = scorer.score(pictures, conditions, previews=previews)
            columns.append(scores)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def choose(self, taken: str) -> None:
        """Candidate `taken` of the last call joins the set; an id of an earlier one changes nothing."""
        if (feature := self._features.pop(taken, None)) is not None:
            rows = [feature[None]] if self._chosen is None else [self._chosen, feature[None]]
            self._chosen = torch.cat(rows)
