"""Scores of an asked class from logits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sitsearch.models.verifiers.base import UNBOUNDED

#: `log_probability`: log p(class | image); `probability`: p itself, the paper's "Oracle IS"; `logit`: the raw logit,
#: the paper's DINO and CLIP verifiers (arXiv 2501.09732, 3.1); `margin`: the logit less the best other one, positive if
#: and only if the asked class is the network's answer.
ClassMode = Literal["log_probability", "probability", "logit", "margin"]

#: Bounds of each mode.
RANGES: dict[ClassMode, tuple[float, float]] = {
    "log_probability": (UNBOUNDED[0], 0.0),
    "probability": (0.0, 1.0),
    "logit": UNBOUNDED,
    "margin": UNBOUNDED,
}


def class_score(logits: Tensor, classes: Tensor, mode: ClassMode) -> Tensor:
    """Scores of the asked classes.

    Args:
        logits: `[B, K]` float32, or log-probabilities, which differ by a constant a row: only `logit` can tell.
        classes: `[B]` int64 in [0, K).
        mode: see `ClassMode`.

    Returns:
        `[B]` float32.
    """
    column = classes[:, None].to(logits.device)
    asked = logits.gather(1, column).squeeze(1)
    if mode == "logit":
        return asked
    if mode == "margin":
        return asked - logits.scatter(1, column, -torch.inf).amax(dim=1)
    log_probability = asked - logits.logsumexp(dim=1)
    return log_probability if mode == "log_probability" else log_probability.exp()
