"""How one machine is shared out, before Ray is there."""

from __future__ import annotations

import pytest

from sitsearch.workers.serving.app import shares_of_machine
from sitsearch.workers.settings import Settings


@pytest.mark.parametrize(
    ("given", "cores", "gpu", "replicas", "threads"),
    [
        ({}, 2, False, 2, 1),
        ({}, 1, False, 1, 1),
        ({}, 16, False, 4, 4),
        ({}, 16, True, 1, 16),
        ({"sampler_replicas": 3}, 16, False, 3, 5),
        ({"sampler_threads": 3}, 16, False, 4, 3),
        ({"sampler_max_replicas": 4}, 16, False, 1, 4),
        ({"sampler_replicas": 8}, 2, False, 8, 1),
    ],
)
def test_samplers_share_the_cores(given: dict[str, int], cores: int, gpu: bool, replicas: int, threads: int) -> None:
    config = Settings(_env_file=None, **given)
    assert shares_of_machine(config, cores, gpu=gpu) == {"sampler_replicas": replicas, "sampler_threads": threads}
