"""States midway are wanted where they lie, all else where there is least to do."""

from __future__ import annotations

from sitsearch.models.condition import Condition
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Integrate, Recipe, Renoise
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.serving.affinity import REMEMBERED, Slots, key_of, ranked

REPLICAS = [f"replica-{i}" for i in range(5)]


def fresh(index: int, to: float = 1.0) -> Recipe:
    return Recipe(seed=1, round=0, index=index).then(Integrate(to=to, steps=4))


def order(recipe: Recipe, known: int = 0) -> Order:
    return Order(recipe, Condition(0), SamplerChoice(), known)


def test_fresh_orders_are_spread_evenly_and_one_slot_takes_all() -> None:
    orders = [order(fresh(i)) for i in range(7)]
    assert Slots(1).assign(orders) == {0: [*range(7)]}
    spread = Slots(3).assign(orders)
    assert sorted(len(places) for places in spread.values()) == [2, 2, 3]
    assert sorted(place for places in spread.values() for place in places) == [*range(7)]
    assert Slots(3).assign(orders[:2]) == {0: [0], 1: [1]}


def test_what_goes_on_from_a_state_goes_where_it_was_made_and_the_rest_makes_up_for_it() -> None:
    slots = Slots(3)
    halted = [fresh(i, to=0.5) for i in range(6)]
    made = {place: slot for slot, places in slots.assign([order(r) for r in halted]).items() for place in places}
    copies = [halted[0].then(Renoise(to=0.3, round=1, index=i), Integrate(to=0.7, steps=2)) for i in range(4)]
    assigned = slots.assign([*(order(copy, known=1) for copy in copies), *(order(fresh(i)) for i in range(20, 28))])
    assert assigned[made[0]] == [0, 1, 2, 3], "copies of one path lie together"
    assert {len(places) for places in assigned.values()} == {4}
    further = copies[2].then(Renoise(to=0.6, round=2, index=0), Integrate(to=1.0, steps=2))
    assert slots.assign([order(further, known=3)]) == {made[0]: [0]}


def test_what_comes_back_to_a_finished_image_goes_where_it_was_made() -> None:
    slots = Slots(4)
    finished = [Order(fresh(i), Condition(0), SamplerChoice(), revisited=True) for i in range(4)]
    (made,) = (slot for slot, places in slots.assign(finished).items() if 2 in places)
    children = [
        order(fresh(2).then(Renoise(to=0.3, round=1, index=i), Integrate(to=1.0, steps=2)), known=1) for i in range(4)
    ]
    assert slots.assign(children) == {made: [0, 1, 2, 3]}


def test_what_is_remembered_is_bounded() -> None:
    slots = Slots(2)
    for first in range(0, REMEMBERED, 64):
        slots.assign([order(fresh(first + i, to=0.5)) for i in range(64)])
    assert len(slots._made) == REMEMBERED


def test_the_slots_of_a_job_take_the_replicas_in_turn() -> None:
    for job in ("a", "b", "c"):
        firsts = [ranked(key_of(job, slot), REPLICAS)[0] for slot in range(10)]
        assert set(firsts[:5]) == set(REPLICAS) and firsts[5:] == firsts[:5]
    assert len({ranked(key_of(str(job), 0), REPLICAS)[0] for job in range(50)}) == 5, "jobs begin at different ones"
    assert ranked(key_of("a", 0), []) == []


def test_a_lost_replica_moves_only_what_was_ranked_after_it() -> None:
    before = ranked(key_of("job", 0), REPLICAS)
    left = [name for name in REPLICAS if name != before[3]]
    after = ranked(key_of("job", 0), left)
    assert after[:3] == before[:3]
    assert ranked(key_of("job", 2), left)[0] == ranked(key_of("job", 2), REPLICAS)[0]
