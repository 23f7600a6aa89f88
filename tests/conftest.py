"""Fixtures that give the tests real parts."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Valkey, one for the whole run."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(folder) as valkey:
        yield valkey.url


@pytest.fixture
def store_settings(valkey_url: str) -> Settings:
    """Settings with a key prefix that no other test uses, and a short lease."""
    return Settings(_env_file=None, redis_url=valkey_url, key_prefix=f"test-{uuid.uuid4().hex}", lease=0.3)


@pytest.fixture
async def store(valkey_url: str, store_settings: Settings) -> AsyncIterator[JobStore]:
    """A job store that starts empty."""
    store = JobStore.from_url(valkey_url, store_settings)
    yield store
    await store.aclose()
