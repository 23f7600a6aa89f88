"""The candidates of a job over HTTP, and searches that start from one."""

from __future__ import annotations

import base64
import io
import json

import httpx
import numpy as np
from PIL import Image

from sitsearch.workers.jobs.images import encode_png, encode_thumbnail
from sitsearch.workers.jobs.job import Candidate, Round, Usage
from sitsearch.workers.jobs.logged import logged
from sitsearch.workers.jobs.recipe import Integrate, Neighbor, Op, Recipe, Renoise
from sitsearch.workers.jobs.shown import shown
from sitsearch.workers.jobs.store import JobStore
from tests.service.gateway.conftest import body, problem
from tests.workers.jobs.store.makers import claimed, make_progress

END = Integrate(to=1.0, steps=4)
STEP, AGAIN = (Neighbor(round=round, index=1, cosine=0.95) for round in (1, 2))


def made(name: str, score: float, *ops: Op, index: int = 0) -> Candidate:
    """A candidate of 40 NFE."""
    recipe = Recipe(seed=7, round=0, index=index, ops=ops)
    return Candidate(id=name, recipe=recipe, nfe=40, forwards=80, scores={"classifier": score})


#: A walk: 0-1 is the first pivot, 1-1 the second; 3-0 goes back along the way of 2-0.
WALK = (
    (made("0-0", 0.1, END), made("0-1", 0.4, END, index=1)),
    (made("1-0", 0.2, STEP.model_copy(update={"index": 0}), END, index=1), made("1-1", 0.6, STEP, END, index=1)),
    (made("2-0", 0.7, STEP, AGAIN, END, index=1),),
    (made("3-0", 0.8, STEP, AGAIN, END, Renoise(to=0.4, round=3, index=0), END, index=1),),
)


async def walked(store: JobStore) -> str:
    """A running job whose rounds are those of `WALK`; its best image is kept."""
    claim = await claimed(store)
    for number, candidates in enumerate(WALK):
        round = Round(round=number, candidates=candidates, audits={"auditor": 0.5})
        images = {c.id: np.full((32, 32, 3), int(200 * c.scores["classifier"]), np.uint8) for c in candidates}
        await store.show(claim.job.id, shown(round, 24), {name: encode_thumbnail(i) for name, i in images.items()})
        await store.append_round(
            claim,
            logged(round),
            progress=make_progress(number + 1),
            usage=Usage(nfe_search=40 * (number + 1)),
            images={c.id: encode_png(images[c.id], c) for c in candidates},
            keep=(candidates[-1].id,),
            candidates=candidates,
        )
    return claim.job.id


async def test_rounds_come_in_pages_with_scores_and_pictures(http: httpx.AsyncClient, store: JobStore) -> None:
    job = (await http.get(f"/jobs/{await walked(store)}")).json()
    page = (await http.get(job["links"]["rounds"], params={"limit": 3})).json()
    assert [one["round"] for one in page["rounds"]] == [0, 1, 2] and page["rounds_in_all"] == 4
    assert [c["scores"]["classifier"] for one in page["rounds"] for c in one["candidates"]] == [0.1, 0.4, 0.2, 0.6, 0.7]
    assert page["rounds"][0]["audits"] == {"auditor": 0.5} and page["rounds"][0]["count"] == 2
    assert page["rounds"][0]["candidates"][0]["thumbnail"] is None and page["rounds"][0]["candidates"][0]["time"] == 1
    last = (await http.get(page["links"]["next"], params={"first": 3, "pictures": True})).json()
    (only,) = last["rounds"][0]["candidates"]
    assert only["id"] == "3-0" and last["links"]["next"] is None
    kind, _, data = only["thumbnail"].partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.format == "WEBP" and picture.size == (32, 32)
        assert np.asarray(picture.convert("RGB")).mean() == 160


async def test_a_candidate_tells_where_it_came_from(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await walked(store)
    template = (await http.get(f"/jobs/{job}/rounds")).json()["links"]["candidate"]
    view = (await http.get(template.replace("{id}", "3-0"))).json()
    assert view["candidate"]["recipe"]["ops"][-2]["op"] == "renoise" and view["round"] == 3
    family = {one["id"]: (one["parent"], one["step"]) for one in view["family"]}
    assert family == {
        "0-1": (None, "fresh noise"),
        "1-0": ("0-1", "neighbour, cosine 0.95"),
        "1-1": ("0-1", "neighbour, cosine 0.95"),
        "2-0": ("1-1", "neighbour, cosine 0.95"),
        "3-0": ("2-0", "re-noised to t = 0.4"),
    }
    assert all(one["thumbnail"].startswith("data:image/webp") for one in view["family"])
    assert (await http.get(view["links"]["image"])).headers["content-type"] == "image/png"
    other = (await http.get(template.replace("{id}", "0-0"))).json()
    assert [one["id"] for one in other["family"]] == ["0-0"] and other["links"]["image"] is None
    problem(await http.get(f"/jobs/{job}/candidates/0-0/image"), 410, "image-expired")
    problem(await http.get(f"/jobs/{job}/candidates/9-9"), 404, "unknown-candidate")
    problem(await http.get("/jobs/nobody/candidates/0-0"), 404, "unknown-job")


async def test_a_search_starts_from_the_noise_of_a_candidate(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await walked(store)
    asked = body(search={"algorithm": "zero_order", "starts": 1}, start_from={"job": job, "candidate": "3-0"})
    started = (await http.post("/generate", json=asked)).json()["request"]
    recipe = started["start_from"]["recipe"]
    assert (recipe["index"], [op["op"] for op in recipe["ops"]]) == (1, ["neighbor", "neighbor"])
    again = await http.post("/generate?dry_run=true", json=started)
    assert again.status_code == 200 and again.json()["request"]["start_from"] == started["start_from"]
    unknown = await http.post("/generate", json=body(start_from={"job": job, "candidate": "9-9"}))
    assert problem(unknown, 422, "unknown-candidate")["errors"][0]["field"] == "start_from.candidate"
    many = body(condition={"classes": ["Q"]}, start_from={"recipe": recipe})
    assert (
        problem(await http.post("/generate", json=many), 422, "invalid-request")["errors"][0]["field"] == "start_from"
    )


async def test_round_events_tell_scores(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await walked(store)
    first = (await http.get(f"/jobs/{job}/rounds")).json()["rounds"][0]["candidates"]
    await store.cancel(job)
    events = await store.redis.xrange(store.keys.events(job))
    told = [json.loads(fields[b"data"]) for _, fields in events if fields[b"type"] == b"round"]
    assert told[0]["candidates"] == {"ids": [c["id"] for c in first], "scores": {"classifier": [0.1, 0.4]}}
    assert told[-1]["candidates"] == {"ids": ["3-0"], "scores": {"classifier": [0.8]}}
