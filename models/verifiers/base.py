"""The protocols of verifiers, and the checks that all of them share.

A verifier is a class `Kind(weights, *, device="cpu", **options)`. `weights` is what its kind reads: a file, a folder, a
state dict, or None. Its keyword-only parameters are the options a card may set; see
`sitsearch.models.verifiers.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from sitsearch.models.condition import Condition

#: A weights file, a folder in a library's own format, or a state dict.
Weights = Path | str | Mapping[str, Tensor]

#: What a verifier needs beyond the images: a class or a prompt in every condition, or the data predictions.
Need = Literal["class", "prompt", "preview"]

#: Bounds of a score that may be any number.
UNBOUNDED = (-math.inf, math.inf)

#: Noise level (1 - t on the Linear interpolant) at which `previews` are predicted (arXiv 2501.09732, 3.2).
PREVIEW_NOISE_LEVEL = 0.4


class Verifier(Protocol):
    """Scores images; higher is better. A score never depends on the other images of the batch.

    Attributes:
        needs: what `score` needs beyond the images.
        range: the least and the greatest score.
        padded: whether `Scorer` pads its calls, so that the same picture gets the same bits for a score whatever is
            scored beside it. Not where an image costs a request of its own.
        differentiable: whether it has a `differentiable_score`.
        digest: of the card it was loaded from, see `sitsearch.models.card_files.CardFile.digest`; empty without one.
    """

    needs: frozenset[Need] = frozenset()
    range: tuple[float, float] = UNBOUNDED
    padded: bool = True
    differentiable: bool = False
    digest: str = ""

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """Scores of a batch.

        Args:
            images: `[B, 3, H, W]` float32 in [0, 1].
            conditions: what was asked of each.
            previews: `[B, 3, H, W]` float32 in [0, 1], each sample's data prediction at `PREVIEW_NOISE_LEVEL`, for
                verifiers with "preview" among their needs; the others ignore it.

        Returns:
            `[B]` float32 on the CPU.

        Raises:
            ValueError: a shape, dtype or range is not as said above, or a condition lacks what the verifier needs.
            VerifierUnavailable: what scores is elsewhere and did not answer.
        """

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """The same scores with their graph, for gradients with respect to the images; of `differentiable` ones.

        Where scores are cut off at a bound, these go on, so that a gradient leads back.

        Args:
            images: `[B, 3, H, W]` float32 in [0, 1] on the verifier's device; they are not checked.
            conditions: what was asked of each.

        Returns:
            `[B]` float32 on the verifier's device.
        """
        raise NotImplementedError


class FeatureNetwork(Protocol):
    """A network whose features others measure distances in; many verifiers are one too."""

    def features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` float32 in [0, 1] to features `[B, D]` float32 on the CPU."""


class ClassNetwork(Protocol):
    """A network that knows classes."""

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` float32 in [0, 1] to log-probabilities `[B, K]` float32 on the CPU."""


class SetVerifier(Protocol):
    """Judges a set of images: the paper's oracles, which take greedily the candidate that helps the set most.

    A set so far is `[n, D]` float32, the features of its images in the order they were taken; `features(images[:0])`
    is the empty one. It can be made again from the images, so a search need not store it.
    """

    def features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` float32 in [0, 1] to what the set is judged by, `[B, D]` float32 on the CPU."""

    def set_scores(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        """The score of the set with each candidate added alone; higher is better.

        Args:
            chosen: `[n, D]` float32, features of the set so far; n may be 0.
            candidates: `[B, D]` float32.

        Returns:
            `[B]` float64.

        Raises:
            ValueError: the shapes do not go together.
        """


def check_images(images: Tensor, size: int | None = None, *, name: str = "images") -> None:
    """Raise ValueError unless `images` are `[B, 3, size, size]` (any height and width for None) float32 in [0, 1]."""
    allowed = "[B, 3, H, W]" if size is None else f"[B, 3, {size}, {size}]"
    fits = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) > 0
    if not fits or (size is not None and tuple(images.shape[2:]) != (size, size)):
        raise ValueError(f"{name} must be {allowed}, not {list(images.shape)}")
    if images.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, not {images.dtype}")
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"{name} must lie in [0, 1]")


def check_count(conditions: Sequence[Condition], batch: int) -> None:
    """Raise ValueError unless there are `batch` conditions."""
    if len(conditions) != batch:
        raise ValueError(f"{len(conditions)} conditions for {batch} images")


def check_sets(chosen: Tensor, candidates: Tensor) -> None:
    """Raise ValueError unless these are `[n, D]` and `[B, D]`; see `SetVerifier.set_scores`."""
    if chosen.ndim != 2 or candidates.ndim != 2 or chosen.shape[1] != candidates.shape[1]:
        raise ValueError(f"features must be [n, D] and [B, D], not {list(chosen.shape)} and {list(candidates.shape)}")


def class_indices(conditions: Sequence[Condition], batch: int, num_classes: int) -> Tensor:
    """`[batch]` int64, the classes of `conditions`.

    Raises:
        ValueError: there are not `batch` of them, or one has no class or one outside [0, num_classes).
    """
    check_count(conditions, batch)
    indices = [condition.class_index for condition in conditions]
    for index in indices:
        if index is None or not 0 <= index < num_classes:
            raise ValueError(f"class {index} is not in [0, {num_classes})")
    return torch.tensor(indices, dtype=torch.int64)


def prompts_of(conditions: Sequence[Condition], batch: int) -> list[str]:
    """The `batch` prompts of `conditions`.

    Raises:
        ValueError: there are not `batch` of them, or one has no prompt.
    """
    check_count(conditions, batch)
    prompts = [condition.prompt for condition in conditions]
    if any(not prompt for prompt in prompts):
        raise ValueError("this verifier reads text: every condition needs a prompt")
    return [prompt for prompt in prompts if prompt]
