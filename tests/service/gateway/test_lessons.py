"""What finished jobs have taught, over HTTP: in the requests that are stored, and in plans."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from sitsearch.service.cli import main
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.algorithms.arms import ARMS
from sitsearch.workers.search.lessons.record import Sums, fields_of
from tests.service.gateway.conftest import body
from tests.workers.jobs.store.makers import succeeded

PASSES = {"arm:halving": Sums.of([2.5] * 12)}
#: What comes of it: the prior that is shipped counts as four passes.
PRIOR = pytest.approx((4 * ARMS["halving"].prior + 12 * 2.5) / 16)
PAIRS = {"residual:16": Sums(n=60, total=12), "variance:16": Sums(n=60, total=120)}
#: The best of 1, 2, 4, 8 and 16 random candidates; six searches of 16 say so.
BEST = (-1.8, -1.2, -0.8, -0.5, -0.3)
RANDOM = {
    "spread": Sums(n=90, total=90),
    **{f"best:{power}": Sums.of([mean - 0.1, mean + 0.1] * 3) for power, mean in enumerate(BEST)},
}
LESS = {"gain:zero_order:3": Sums.of([-0.5, -0.4, -0.6, -0.5, -0.5])}


async def teach(store: JobStore, sums: Mapping[str, Sums], verifier: str = "classifier") -> None:
    """Let a finished job say so."""
    assert await store.teach((await succeeded(store)).id, "glyphs", verifier, fields_of(sums))


async def stored(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """The search of a job that was submitted, as its view shows it."""
    answer = await http.post("/generate", json=body(**fields))
    assert answer.status_code == 202, answer.text
    search: dict[str, Any] = (await http.get(answer.json()["links"]["self"])).json()["request"]["search"]
    return search


@pytest.mark.parametrize(("name", "option"), [("auto", "priors"), ("successive_halving", "prior"), ("paths", "prior")])
async def test_what_was_taught_is_filled_in_and_shown(
    http: httpx.AsyncClient, store: JobStore, name: str, option: str
) -> None:
    assert option not in await stored(http, search=name), "nothing was taught yet"
    await teach(store, PASSES | PAIRS)
    filled = await stored(http, search=name)
    priors = {"halving": PRIOR}
    assert filled[option] == priors if name == "auto" else [p["t"] for p in filled[option]] == [0, 0.125, 0.25, 0.5]
    assert option not in await stored(http, search=name, verifier="aesthetic"), "it was taught of another verifier"


async def test_what_a_request_names_is_left(http: httpx.AsyncClient, store: JobStore) -> None:
    await teach(store, PASSES)
    search = {"algorithm": "auto", "priors": {"rollover": 3.0}}
    assert (await stored(http, search=search))["priors"] == {"rollover": 3.0}
    assert "priors" not in await stored(http, search={"algorithm": "auto", "preset": "paper"})


async def test_a_repeated_key_gives_the_job_as_it_was_filled_in_then(http: httpx.AsyncClient, store: JobStore) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await http.post("/generate", json=body(search="auto"), headers=headers)
    await teach(store, PASSES)
    second = await http.post("/generate", json=body(search="auto"), headers=headers)
    assert (first.status_code, second.status_code) == (202, 200) and first.json()["id"] == second.json()["id"]
    assert "priors" not in second.json()["request"]["search"]


async def plan_of(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A plan."""
    answer = await http.post("/generate?dry_run=true", json=body(**fields))
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def test_a_plan_says_what_random_search_would_find_and_warns(http: httpx.AsyncClient, store: JobStore) -> None:
    before = (await plan_of(http, search="zero_order"))["plan"]
    assert (before["forecast"]["random"], before["forecast"]["warning"]) == (None, None)
    await teach(store, RANDOM | LESS)
    plan = (await plan_of(http, search="zero_order"))["plan"]
    random = plan["forecast"]["random"]  # 10 trajectories: between 8 and 16
    assert -0.5 < random["score"] < -0.3 and random["jobs"] == 6 and random["low"] < random["score"] < random["high"]
    assert plan["forecast"]["score"] == pytest.approx(random["score"] - 0.5)
    assert plan["forecast"]["warning"] and plan["explanation"][-1] == f"warning: {plan['forecast']['warning']}"
    assert len(plan["explanation"]) == len(before["explanation"]) + 3


async def test_the_command_line_prints_it(
    http: httpx.AsyncClient, store: JobStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await teach(store, RANDOM | LESS)
    asked = ["--class", "Q", "--nfe", "400", "--search", "zero_order", "--url", str(http.base_url)]
    monkeypatch.setattr(sys, "argv", ["sitsearch", "plan", *asked])
    with pytest.raises(SystemExit) as end:
        await asyncio.to_thread(main)
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "expected of random search with this budget, 10 trajectories: " in said
    assert "warning: random search may do better: 5 searches with about this budget here by zero_order found" in said


async def test_a_plan_of_the_automatic_search_is_of_the_request_that_would_be_stored(
    http: httpx.AsyncClient, store: JobStore
) -> None:
    await teach(store, PASSES)
    view = await plan_of(http, search="auto")
    assert view["request"]["search"]["priors"] == {"halving": PRIOR}
    assert view["plan"]["forecast"]["arms"][0] == {"arm": "halving", "prior": PRIOR}
    assert (await http.get("/jobs")).json()["jobs"][0]["status"] == "succeeded", "nothing but what taught"


async def test_plans_of_ensembles_and_of_many_conditions_foretell_no_scores(
    http: httpx.AsyncClient, store: JobStore
) -> None:
    await teach(store, RANDOM)
    ensemble = await plan_of(http, verifier={"name": "ensemble", "members": ["classifier", "aesthetic"]})
    assert ensemble["plan"]["candidates"] == 10 and ensemble["plan"]["forecast"]["random"] is None
    many = await plan_of(http, condition={"classes": ["Q", "R"]})
    assert many["plan"]["forecast"] is None


async def test_sums_that_make_no_sense_stop_nobody(http: httpx.AsyncClient, store: JobStore) -> None:
    await teach(store, {"spread": Sums(n=1, total=-5), "arm:halving": Sums(n=-3), "best:0": Sums(n=9, total=-1e300)})
    assert (await http.post("/generate", json=body(search="auto"))).status_code == 202
    await plan_of(http, search="auto")
