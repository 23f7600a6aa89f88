"""Dry runs and extensions over HTTP."""

from __future__ import annotations

import httpx

from sitsearch.workers.jobs.job import JobError, Status, Usage
from sitsearch.workers.jobs.store import JobStore
from tests.service.gateway.conftest import OFFER, body, problem
from tests.workers.jobs.store.makers import claimed, log_round, logged_rounds, make_request, make_result, succeeded


async def test_a_dry_run_answers_with_the_plan_and_submits_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.post("/generate?dry_run=true", json=body(sampler={"steps": 5, "final_steps": 20}))
    assert answer.status_code == 200
    content = answer.json()
    plan = content["plan"]
    assert plan["nfe"] == {"budget": 400, "search": 360, "final": 40, "unspent": 0}
    assert (plan["rounds"], plan["candidates"], plan["forwards"], plan["exact"]) == (3, 36, 800, True)
    assert content["seconds"] == 1.6  # 800 forwards at 500 a second
    assert content["request"]["sampler"]["guidance"] == 1.5  # as it would run
    assert (await http.get("/jobs")).json()["jobs"] == []


async def test_a_dry_run_of_an_ensemble_answers_with_the_plan(http: httpx.AsyncClient, store: JobStore) -> None:
    slow = OFFER.verifiers[1].model_copy(update={"images_per_second": 10.0})
    await store.publish_offer(OFFER.model_copy(update={"verifiers": (OFFER.verifiers[0], slow)}))
    ensemble = {"name": "ensemble", "members": ["classifier", "aesthetic"], "rule": "zscore"}
    answer = await http.post("/generate?dry_run=true", json=body(verifier=ensemble, search="zero_order"))
    assert answer.status_code == 200, answer.text
    plan = answer.json()["plan"]
    assert (plan["candidates"], plan["nfe"]["search"]) == (10, 400)
    assert set(plan["chosen"]) == {"starts", "neighbors"}
    assert any(line.startswith(f"for this budget: starts {plan['chosen']['starts']}") for line in plan["explanation"])
    assert answer.json()["seconds"] == 800 / 500 + 10 / 10  # the slowest member is waited for


async def test_a_dry_run_refuses_what_a_submission_refuses(http: httpx.AsyncClient) -> None:
    content = problem(await http.post("/generate?dry_run=true", json=body(budget={"nfe": 3})), 422, "budget-too-small")
    assert content["errors"][0]["field"] == "budget.nfe"


async def test_a_search_that_succeeded_goes_on_with_a_larger_budget(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await succeeded(store)
    link = (await http.get(f"/jobs/{job.id}")).json()["links"]["extend"]
    answer = await http.post(link, json={"nfe": 900})
    assert answer.status_code == 202
    extended = answer.json()
    assert (extended["status"], extended["finished_at"]) == ("queued", None)
    assert extended["result"]["images"][0]["candidate"]["id"] == "0-0", "the last result stays until the next"
    assert extended["progress"]["nfe_budget"] == 900
    assert (await http.post(link, json={"nfe": 900})).json()["status"] == "queued"  # again: nothing changes
    claim = await store.claim("a")
    assert claim is not None and claim.job.id == job.id and not claim.taken_over
    rounds = len(await logged_rounds(store, job.id))
    assert [(e.after_round, e.nfe) for e in claim.job.extensions] == [(rounds, 500)]
    await log_round(store, claim, rounds)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    assert (await http.get(f"/jobs/{job.id}")).json()["status"] == "succeeded"


async def test_what_failed_or_was_canceled_goes_on(http: httpx.AsyncClient, store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    for end in ("cancel", "fail"):
        if end == "cancel":
            await http.post(f"/jobs/{claim.job.id}/cancel")
        else:
            error = JobError(code="verifier-unavailable", detail="away")
            await store.finish(claim, status=Status.FAILED, error=error, result=make_result("0-0"), usage=Usage())
        ended = (await http.get(f"/jobs/{claim.job.id}")).json()
        answer = await http.post(ended["links"]["resume"])
        assert answer.status_code == 202 and answer.json()["status"] == "queued" and answer.json()["error"] is None
        assert (await http.post(ended["links"]["resume"])).json()["status"] == "queued"  # again: nothing changes
        again = await store.claim("b")
        assert again is not None and again.job.id == claim.job.id and again.attempts == 1
        claim = again
    assert len(await logged_rounds(store, claim.job.id)) == 1, "the log is whole"
    done = await succeeded(store)
    problem(await http.post(f"/jobs/{done.id}/resume"), 409, "has-succeeded")
    problem(await http.post("/jobs/nope/resume"), 404, "unknown-job")


async def test_what_cannot_be_extended_says_why(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await succeeded(store)
    for nfe, said in ((399, "more than the 400"), (10**7, "at most")):
        content = problem(await http.post(f"/jobs/{job.id}/extend", json={"nfe": nfe}), 422, "budget-unsuitable")
        assert content["errors"][0]["field"] == "nfe" and said in content["errors"][0]["message"]
    problem(await http.post(f"/jobs/{job.id}/extend", json={}), 422, "invalid-request")
    running = (await claimed(store)).job
    problem(await http.post(f"/jobs/{running.id}/extend", json={"nfe": 900}), 409, "not-succeeded")
    problem(await http.post("/jobs/nope/extend", json={"nfe": 900}), 404, "unknown-job")


async def test_a_set_goes_on_where_its_allocation_is_adaptive(http: httpx.AsyncClient, store: JobStore) -> None:
    many = {"condition": {"classes": ["A", "B"]}, "budget": {"nfe": 400}}
    even = await succeeded(store, request=make_request(**many), class_indices=(10, 11))
    said = problem(await http.post(f"/jobs/{even.id}/extend", json={"nfe": 900}), 409, "not-extensible")
    assert "`allocation` is adaptive" in said["detail"]
    adaptive = make_request(**many, allocation="adaptive")
    job = await succeeded(store, request=adaptive, class_indices=(10, 11))
    assert (await http.post(f"/jobs/{job.id}/extend", json={"nfe": 900})).status_code == 202
