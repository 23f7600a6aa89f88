"""Whether a replica that answers is still good for anything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.serving.persistence import SICK

#: Calls in a row that may fail, by no fault that is the call's, before the replica is taken for broken.
IN_A_ROW = 3


class Health:
    """What calls of a replica came to."""

    def __init__(self) -> None:
        self._row, self._sick = 0, ""

    def took(self, error: Exception | None) -> None:
        """A call was answered, or failed."""
        if error is None:
            self._row = 0
        elif not isinstance(error, ValueError | VerifierUnavailable):
            self._row += 1
            if any(sign in str(error) for sign in SICK):
                self._sick = str(error)

    def check(self) -> None:
        """Raise RuntimeError if the device can do nothing more, or if calls only fail."""
        if self._sick:
            raise RuntimeError(f"the device is broken: {self._sick}")
        if self._row >= IN_A_ROW:
            raise RuntimeError(f"the last {self._row} calls failed")


class Watched:
    """What has a `health`."""

    health: Health


P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W", bound=Watched)


def watched(method: Callable[Concatenate[W, P], T]) -> Callable[Concatenate[W, P], T]:
    """A method whose calls tell of the replica's health."""

    @functools.wraps(method)
    def call(self: W, /, *args: P.args, **options: P.kwargs) -> T:
        try:
            answer = method(self, *args, **options)
        except Exception as error:
            self.health.took(error)
            raise
        self.health.took(None)
        return answer

    return call
