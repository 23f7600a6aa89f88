"""A fault before and after every single write that a coordinator makes: the end is always the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from tests.simulation.clock import virtual_time
from tests.simulation.network import FATES, Server, World
from tests.simulation.schedule import OVER, one_job
from tests.simulation.service import Service, seeded


def run(server: Redis, algorithm: str, fate: Callable[[int], str | None]) -> World:
    async def course(world: World) -> None:
        service = Service(world, Server(server, world), coordinators=1)
        try:
            await one_job(service, algorithm, extended=True)
        finally:
            await service.end()

    with virtual_time() as loop:
        world = World(loop, 1)
        world.fate = fate
        with seeded(world):
            loop.complete(course(world), OVER)
    return world


@pytest.mark.parametrize("algorithm", ["random", "fk_steering"])
def test_whatever_becomes_of_a_write_the_job_ends_as_if_nothing_had(server: Redis, algorithm: str) -> None:
    writes = run(server, algorithm, lambda number: None).writes
    assert writes >= 10  # two claims, rounds, two ends, two lessons
    for fate in FATES:
        for place in range(1, writes + 1):
            run(server, algorithm, lambda number, place=place, fate=fate: fate if number == place else None)  # type: ignore[misc]


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_so_it_does_where_every_other_write_fails(server: Redis, fate: str) -> None:
    run(server, "random", lambda number: fate if number % 2 else None)
