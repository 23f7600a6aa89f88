"""A short form of `make chaos`, on the service of these tests."""

from __future__ import annotations

import pytest

from tests.chaos.storm import Storm
from tests.cluster.conftest import Service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]  # the first test starts the service


def test_jobs_of_every_algorithm_outlive_what_is_killed_under_them(service: Service) -> None:
    kinds = ("coordinator", "sampler", "valkey", "full memory")
    report = Storm(service, seed=4).rage(40, every=8, clients=3, kinds=kinds)
    print(report)
    assert report.problems == [] and report.jobs >= 3 and report.faults.total() >= 2
