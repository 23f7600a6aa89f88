"""The gradients of verifiers that guide trajectories: where the engine gets them from, and who waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Decoder
from sitsearch.models.verifiers import gradients
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.judge import has_gradients


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
        shape: of the states for which sizes of batches are tried now, so that no gradient waits for it.
    """

    def __init__(
        self,
        verifiers: Mapping[str, Verifier],
        decoder: Decoder,
        *,
        batch: int,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self._of = {
            name: gradients.Gradients(verifier, decoder, batch=batch)
            for name, verifier in verifiers.items()
            if has_gradients(verifier)
        }
        if shape is not None:
            for one in self._of.values():
                one.warm_up(shape)

    def __call__(self, wanted: Wanted) -> Future[Tensor]:
        made: Future[Tensor] = Future()
        try:
            found = self._of[wanted.verifier].of(wanted.x, wanted.conditions, wanted.views)
            made.set_result(found)
        except Exception as error:
            made.set_exception(error)
        return made


class Waits(Protocol):
    """What waits for gradients."""

    @property
    def wanted(self) -> Wanted | None: ...


W = TypeVar("W", bound=Waits)


class Gradients(Generic[W]):
    """Gradients that were asked for.

    Attributes:
        source: who makes them; None is nobody.
        asked: some have not been handed on yet.
    """

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self._asked: dict[Future[Tensor], tuple[W, ...]] = {}

    @property
    def asked(self) -> bool:
        """See the class."""
        return bool(self._asked)

    @property
    def outstanding(self) -> bool:
        """Some were asked for, and none of them has come."""
        return self.asked and not any(future.done() for future in self._asked)

    def ask(self, waiting: Sequence[W]) -> None:
        """Ask for what these want: of each verifier at once."""
        by_verifier: dict[str, list[tuple[W, Wanted]]] = {}
        for one in waiting:
            if one.wanted is not None:
                by_verifier.setdefault(one.wanted.verifier, []).append((one, one.wanted))
        for verifier, parts in by_verifier.items():
            assert self.source is not None  # see `Engine.submit`
            together = Wanted(
                verifier,
                torch.cat([wanted.x for _, wanted in parts]),
                tuple(condition for _, wanted in parts for condition in wanted.conditions),
                tuple(views for _, wanted in parts for views in wanted.views),
            )
            self._asked[self.source(together)] = tuple(one for one, _ in parts)

    def came(self, *, wait_for_one: bool) -> Iterator[tuple[W, Future[Tensor]]]:
        """What came by now, for each who waits a future of its own rows.

        Args:
            wait_for_one: wait until some came.
        """
        if wait_for_one:
            wait(self._asked, return_when=FIRST_COMPLETED)
        for future in [future for future in self._asked if future.done()]:
            ones, start = self._asked.pop(future), 0
            for one in ones:
                assert one.wanted is not None
                rows = slice(start, start := start + len(one.wanted.x))
                yield one, _part(future, rows)


def _part(future: Future[Tensor], rows: slice) -> Future[Tensor]:
    """Some rows of what a future that is done came to."""
    part: Future[Tensor] = Future()
    if error := future.exception():
        part.set_exception(error)
    else:
        part.set_result(future.result()[rows])
    return part
