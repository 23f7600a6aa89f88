"""When a replica that answers is to be replaced."""

from __future__ import annotations

import pytest

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.serving.health import IN_A_ROW, Health, Watched, watched


class Replica(Watched):
    def __init__(self) -> None:
        self.health = Health()

    @watched
    def call(self, error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return "answer"


def failing(replica: Replica, *errors: Exception) -> None:
    for error in errors:
        with pytest.raises(type(error)):
            replica.call(error)


def test_a_broken_device_is_bad_health_at_once_and_for_good() -> None:
    replica = Replica()
    failing(replica, RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert replica.call() == "answer"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        replica.health.check()


def test_who_only_fails_is_broken_and_who_recovers_is_not() -> None:
    replica = Replica()
    failing(replica, *[RuntimeError("odd")] * (IN_A_ROW - 1))
    replica.health.check()
    replica.call()
    failing(replica, *[RuntimeError("odd")] * IN_A_ROW)
    with pytest.raises(RuntimeError, match="the last 3 calls failed"):
        replica.health.check()


def test_a_call_that_is_wrong_is_not_the_replicas_fault() -> None:
    replica = Replica()
    failing(replica, *[ValueError("no such class")] * 5, *[VerifierUnavailable("judge")] * 5)
    replica.health.check()
