"""A Valkey that simulations empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.simulation.valkey import valkey


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Of one module's tests."""
    with valkey() as client:
        yield client
