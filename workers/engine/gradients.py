"""Where the engine gets the gradients of verifiers from that guide trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Decoder
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.gradients import Gradients


@dataclass(frozen=True)
class Wanted:
    """Data predictions whose gradients by one verifier are wanted.

    Attributes:
        verifier: its name.
        x: `[N, C, H, W]` float32 on the generator's device.
        conditions: what was asked of each.
        views: of each the seed of its shifted crops, and how many; see `Gradients`.
    """

    verifier: str
    x: Tensor
    conditions: tuple[Condition, ...]
    views: tuple[tuple[int, int], ...]


#: Answers with the gradients `[N, C, H, W]` float32, on any device; by and by, while the engine goes on with others.
Source = Callable[[Wanted], "Future[Tensor]"]


class Here:
    """Gradients made in this process, at once.

    Args:
        verifiers: by name; those that are differentiable can be asked for.
        decoder: of the generator.
        batch: pictures of one call of a verifier, at most.
    """

    def __init__(self, verifiers: Mapping[str, Verifier], decoder: Decoder, *, batch: int) -> None:
        self._of = {
            name: Gradients(verifier, decoder, batch=batch)
            for name, verifier in verifiers.items()
            if verifier.differentiable
        }

    def __call__(self, wanted: Wanted) -> Future[Tensor]:
        made: Future[Tensor] = Future()
        try:
            _, gradients = self._of[wanted.verifier].score_and_gradient(
                wanted.x, wanted.conditions, views=wanted.views
            )
            made.set_result(gradients)
        except Exception as error:
            made.set_exception(error)
        return made
