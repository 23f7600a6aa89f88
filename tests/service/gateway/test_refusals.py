"""Bad input: always a problem that names the field, never a 500."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sitsearch.service.gateway.app import create_app
from sitsearch.service.gateway.checks import admit
from sitsearch.service.gateway.problems import Invalid
from sitsearch.workers.jobs.offer import VerifierOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.settings import Settings
from tests.service.gateway.conftest import LETTERS, OFFER, body, problem, serving


@pytest.fixture(scope="module")
def http(valkey_url: str) -> Iterator[httpx.Client]:
    """A client of one gateway for all these tests, which leave nothing behind that could matter to another."""
    config = Settings(_env_file=None, redis_url=valkey_url, key_prefix=f"test-{uuid.uuid4().hex}", offer_ttl=600)

    async def publish() -> None:
        store = JobStore.from_url(valkey_url, config)
        await store.publish_offer(OFFER)
        await store.aclose()

    asyncio.run(publish())
    with serving(config) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "slug", "field", "allowed"),
    [
        ({"model": "dalle"}, "unknown-model", "model", ["glyphs", "free"]),
        ({"verifier": "clip"}, "unknown-verifier", "verifier.name", ["classifier", "aesthetic", "fid"]),
        ({"verifier": "other"}, "unknown-verifier", "verifier.name", ["classifier", "aesthetic", "fid"]),
        ({"search": "annealing"}, "unknown-algorithm", "search.algorithm", list(ALGORITHMS)),
        ({"sampler": {"method": "ddim"}}, "unknown-sampler", "sampler.method", ["euler", "heun", "euler_maruyama"]),
        ({"condition": {"class": "q"}}, "unknown-class", "condition.class", list(LETTERS)),
        ({"condition": {"class": 36}}, "unknown-class", "condition.class", list(LETTERS)),
        ({"condition": {"class": -1}}, "unknown-class", "condition.class", list(LETTERS)),
        ({"condition": {"class": "\u0663"}}, "unknown-class", "condition.class", list(LETTERS)),
        ({"condition": {"class": "\x00"}}, "unknown-class", "condition.class", list(LETTERS)),
        ({"condition": {"prompt": "a Q"}}, "condition-unsuitable", "condition.class", list(LETTERS)),
        ({"model": "free"}, "condition-unsuitable", "condition.class", None),
        ({"model": "free", "condition": {"prompt": "x"}}, "condition-unsuitable", "condition.class", None),
        ({"condition": {"classes": ["A", "q"]}}, "unknown-class", "condition.classes.1", list(LETTERS)),
        (
            {"condition": {"many": [{"class": "A"}, {"class": 36}]}},
            "unknown-class",
            "condition.many.1.class",
            list(LETTERS),
        ),
        ({"condition": {"prompts": ["x", "y"]}}, "condition-unsuitable", "condition.prompts.0", list(LETTERS)),
        (
            {"condition": {"many": [{"class": "A"}, {"prompt": "y"}]}},
            "condition-unsuitable",
            "condition.many.1.class",
            list(LETTERS),
        ),
        (
            {"model": "free", "condition": {"prompts": ["x", "y"]}},
            "condition-unsuitable",
            "condition.prompts.0",
            None,
        ),
        (
            {"model": "free", "condition": {"many": [{"prompt": "x"}, {"class": 1}]}, "verifier": "aesthetic"},
            "condition-unsuitable",
            "condition.many.1.class",
            None,
        ),
        (
            {"model": "free", "condition": {"many": [{"prompt": "x"}, {"class": 1}]}, "verifier": "alignment"},
            "condition-unsuitable",
            "condition.many.1.class",
            None,
        ),
        ({"condition": {"many": []}}, "invalid-request", "condition.many", None),
        ({"condition": {"many": [{"class": "A"}, {}]}}, "invalid-request", "condition.many.1", None),
        ({"condition": {"many": [{"class": "A"}, {"prompt": ""}]}}, "invalid-request", "condition.many.1.prompt", None),
        ({"condition": {"prompts": ["x", ""]}}, "invalid-request", "condition.prompts.1", None),
        ({"condition": {"prompts": ["x", "y", 3]}}, "invalid-request", "condition.prompts.2", None),
        ({"condition": {"classes": ["A", True]}}, "invalid-request", "condition.classes.1", None),
        ({"auditors": ["aesthetic", ""]}, "invalid-request", "auditors.1", None),
        (
            {"verifier": {"name": "ensemble", "members": ["classifier", "aesthetic", ""]}},
            "invalid-request",
            "verifier.members.2",
            None,
        ),
        ({"condition": {"class": "A", "prompts": ["x"]}}, "invalid-request", "condition", None),
        ({"condition": {"classes": ["A"], "many": [{"class": "B"}]}}, "invalid-request", "condition", None),
        ({"allocation": "adaptive"}, "invalid-request", "allocation", None),
        ({"per_condition": 2}, "invalid-request", "per_condition", None),
        ({"diversity": 0.5}, "invalid-request", "diversity", None),
        ({"diversity": 0.5, "num_images": 64}, "invalid-request", "diversity", None),
        ({"diversity": 1.5, "num_images": 2}, "invalid-request", "diversity", None),
        ({"diversity": 0.5, "condition": {"classes": ["A", "B"]}}, "invalid-request", "diversity", None),
        ({"allocation": "greedy", "condition": {"classes": ["A", "B"]}}, "invalid-request", "allocation", None),
        (
            {"allocation": "adaptive", "condition": {"classes": ["A", "B"]}, "verifier": "fid"},
            "verifier-unsuitable",
            "allocation",
            ["uniform"],
        ),
        (
            {"allocation": "adaptive", "condition": {"classes": ["A", "B"]}, "search": "zero_order"},
            "sampler-unsuitable",
            "search.algorithm",
            None,
        ),
        ({"search": {"algorithm": "random", "size": 4}}, "invalid-option", "search.size", ["round_size"]),
        ({"search": {"algorithm": "revisit", "times": [0, 0.5]}}, "invalid-option", "search", None),
        ({"search": {"algorithm": "random", "round_size": 0}}, "invalid-option", "search.round_size", None),
        ({"search": {"algorithm": "random", "round_size": "many"}}, "invalid-option", "search.round_size", None),
        ({"search": {"algorithm": "random", "round_size": True}}, "invalid-option", "search.round_size", None),
        ({"budget": {"nfe": 1_000_001}}, "budget-too-large", "budget.nfe", None),
        ({"budget": {"forwards": 2_000_001}}, "budget-too-large", "budget.forwards", None),
        ({"budget": {"nfe": 39}}, "budget-too-small", "budget.nfe", None),
        ({"budget": {"forwards": 79}}, "budget-too-small", "budget.forwards", None),
        ({"budget": {"nfe": 400, "forwards": 79}}, "budget-too-small", "budget.forwards", None),
        ({"num_images": 11}, "budget-too-small", "budget.nfe", None),
        ({"sampler": {"steps": 20, "final_steps": 181}}, "budget-too-small", "budget.nfe", None),
        ({"colour": 1}, "invalid-request", "colour", None),
        ({"budget": {}}, "invalid-request", "budget", None),
        ({"budget": {"nfe": 0}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": -5}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": "400"}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": 400.5}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": True}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": 10**9}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": 2**64}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": float("inf")}}, "invalid-request", "budget.nfe", None),
        ({"budget": {"nfe": 400, "seconds": float("nan")}}, "invalid-request", "budget.seconds", None),
        ({"budget": [400]}, "invalid-request", "budget", None),
        ({"verifier": None}, "invalid-request", "verifier", None),
        ({"condition": {"class": True}}, "invalid-request", "condition.class", None),
        ({"condition": {"class": {"a": 1}}}, "invalid-request", "condition.class", None),
        ({"condition": {}}, "invalid-request", "condition", None),
        ({"seed": -1}, "invalid-request", "seed", None),
        ({"seed": 2**63}, "invalid-request", "seed", None),
        ({"model": ["glyphs"]}, "invalid-request", "model", None),
        ({"model": "\ud800"}, "invalid-request", "model", None),
        ({"search": {"\udfff": 1}}, "invalid-request", "search", None),
        ({"search": {"algorithm": "random", "round_size": 10**400}}, "invalid-request", "search.round_size", None),
        ({"sampler": {"guidance": 0.5}}, "invalid-request", "sampler.guidance", None),
        ({"stop": {"score": "x"}}, "invalid-request", "stop.score", None),
        ({"stop": {"target": {"score": 1, "confidence": 1}}}, "invalid-request", "stop.target.confidence", None),
        ({"stop": {"target": 1}}, "invalid-request", "stop.target", None),
        (
            {"condition": {"classes": ["A", "B"]}, "stop": {"target": {"score": 1}}},
            "stop-unsuitable",
            "stop.target",
            None,
        ),
        (
            {"condition": {"classes": ["A", "B"]}, "stop": {"patience_nfe": 1}},
            "stop-unsuitable",
            "stop.patience_nfe",
            None,
        ),
        ({"priority": 11}, "invalid-request", "priority", None),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_field_at_fault_is_named(
    http: httpx.Client, fields: dict[str, Any], slug: str, field: str, allowed: list[str] | None
) -> None:
    text = json.dumps(body(**fields))
    answer = http.post("/generate", content=text, headers={"Content-Type": "application/json"})
    errors = problem(answer, 422, slug)["errors"]
    assert [error["field"] for error in errors] == [field], errors
    assert errors[0].get("allowed") == allowed


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"verifier": "fid"}, "verifier.name"),
        ({"verifier": {"name": "ensemble", "members": ["classifier", "fid"]}}, "verifier.members.1"),
        ({"auditors": ["aesthetic", "fid"]}, "auditors.1"),
    ],
)
def test_a_verifier_of_sets_is_refused_where_there_is_one_condition(fields: dict[str, Any], field: str) -> None:
    fid = VerifierOffer(name="fid", title="Distance", needs=(), models=(), sets=True)
    offer = OFFER.model_copy(update={"verifiers": (*OFFER.verifiers, fid)})
    with pytest.raises(Invalid) as refused:
        admit(GenerateRequest.model_validate(body(**fields)), offer, max_nfe=10_000)
    (error,) = refused.value.errors
    assert (refused.value.slug, error.field, error.allowed) == (
        "verifier-unsuitable",
        field,
        ("classifier", "aesthetic"),
    )
    assert "condition.classes" in error.message
    many = GenerateRequest.model_validate(body(condition={"classes": ["A", "B"]}, verifier="fid"))
    assert admit(many, offer, max_nfe=10_000)[1] == (0, 1)


def test_a_missing_field_is_named(http: httpx.Client) -> None:
    errors = problem(http.post("/generate", json={}), 422, "invalid-request")["errors"]
    assert sorted(error["field"] for error in errors) == ["budget", "condition", "verifier"]


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"budget": {"nfe": 1}}, 40),
        ({"budget": {"nfe": 1}, "num_images": 3}, 120),
        ({"budget": {"forwards": 1}}, 80),
        ({"budget": {"forwards": 1}, "sampler": {"guidance": 1}}, 40),
        ({"budget": {"nfe": 1}, "sampler": {"method": "euler", "steps": 7, "final_steps": 50}}, 57),
    ],
)
def test_the_least_budget_is_told_and_is_enough(http: httpx.Client, fields: dict[str, Any], least: int) -> None:
    errors = problem(http.post("/generate", json=body(**fields)), 422, "budget-too-small")["errors"]
    assert f"at least {least} " in errors[0]["message"]
    (unit,) = fields["budget"]
    for value, status in ((least, 202), (least - 1, 422)):
        answer = http.post("/generate", json=body(**fields | {"budget": {unit: value}}))
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "1 image by 'random': at least 40 nfe"),
        ({"num_images": 3}, "3 images by 'random': at least 120 nfe"),
        ({"condition": {"classes": ["A"]}}, "1 image by 'random': at least 40 nfe"),
        ({"condition": {"classes": ["A", "B"]}, "per_condition": 2}, "4 images by 'random': at least 160 nfe"),
        (
            {"condition": {"many": [{"class": "A"}] * 3}, "allocation": "adaptive"},
            "3 images by 'random': at least 120 nfe",
        ),
    ],
)
def test_a_budget_that_is_too_small_is_told_for_how_many_images(fields: dict[str, Any], said: str) -> None:
    request = GenerateRequest.model_validate(body(budget={"nfe": 39}, **fields))
    with pytest.raises(Invalid) as refused:
        admit(request, OFFER, max_nfe=10_000)
    (error,) = refused.value.errors
    assert (refused.value.slug, error.field) == ("budget-too-small", "budget.nfe")
    assert error.message.startswith(said)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nul",
        b'{"model": "glyphs",}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"seed": 1, "seed": 2}',
        b"[" * 60_000,
        b'{"search":' * 6_000,
        b"[" * 40 + b"]" * 40,
        b'{"a": "\x00"}',
        b"{} {}",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_not_json_is_400(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/generate", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 400, "malformed-json")


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b'"glyphs"', b"true", b"NaN", b"-Infinity", b"1e999"])
def test_json_that_is_no_object_is_422(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/generate", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json", "multipart/form-data"])
def test_another_content_type_is_415(http: httpx.Client, kind: str) -> None:
    answer = http.post("/generate", content=json.dumps(body()), headers={"Content-Type": kind})
    problem(answer, 415, "unsupported-media-type")


def test_a_body_over_the_limit_is_413_whether_or_not_its_length_is_told(http: httpx.Client) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 70_000, b" " * 2_000_000, endless()):
        problem(http.post("/generate", content=content, headers=headers), 413, "body-too-large")


def raw_post(http: httpx.Client, pieces: Iterable[bytes], framing: str) -> bytes:
    """All that a client sees which sends the whole of its body before it reads, unlike the one of httpx, which passes
    over a reset while it sends."""
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=30) as client:
        client.sendall(
            f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode()
        )
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("size", [70_000, 200_000, 2_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_on_past_the_limit_gets_the_answer_and_no_reset(http: httpx.Client, size: int, chunked: bool) -> None:
    pieces = [b" " * 10_000] * (size // 10_000)
    framing = f"Content-Length: {size}"
    if chunked:
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        framing = "Transfer-Encoding: chunked"
    head, _, content = raw_post(http, pieces, framing).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ") and b"\r\nconnection: close" in head.lower()
    assert b"\r\ncontent-type: application/problem+json" in head.lower()
    assert json.loads(content) == {
        "type": "urn:sitsearch:problem:body-too-large",
        "title": "The body is too large",
        "status": 413,
        "detail": "the body may have 65536 bytes",
    }


def test_a_body_that_does_not_come_is_408(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitsearch.service.gateway.body._BODY_TIMEOUT", 0.2)
    answer = raw_post(http, [b"{"], "Content-Length: 2")
    assert answer.startswith(b"HTTP/1.1 408 ") and b"urn:sitsearch:problem:body-too-slow" in answer


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_of_bad_length_is_refused(http: httpx.Client, key: str) -> None:
    answer = http.post("/generate", json=body(), headers={"Idempotency-Key": key})
    assert problem(answer, 422, "invalid-request")["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=9999999999999999999999", "limit"),
        ("limit=x", "limit"),
        ("status=done", "status"),
        ("status=%ff", "status"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=nan:x", "cursor"),
        ("cursor=%00", "cursor"),
    ],
)
def test_a_bad_page_parameter_is_named(http: httpx.Client, query: str, field: str) -> None:
    errors = problem(http.get(f"/jobs?{query}"), 422, "invalid-request")["errors"]
    assert [error["field"] for error in errors] == [field]


@pytest.mark.parametrize("job_id", ["nobody", "%00", "%ff", "a:b", "..%2f", "x" * 5000, "{sitsearch}", "💥"])
def test_an_unknown_job_is_404(http: httpx.Client, job_id: str) -> None:
    slug = "not-found" if "%2f" in job_id else "unknown-job"
    problem(http.get(f"/jobs/{job_id}"), 404, slug)
    problem(http.get(f"/jobs/{job_id}/events"), 404, slug)
    problem(http.get(f"/jobs/{job_id}/images/0"), 404, slug)
    problem(http.post(f"/jobs/{job_id}/cancel"), 404, slug)
    problem(http.get(f"/jobs/{job_id}", headers={"Prefer": "wait=1"}), 404, slug)


def test_an_unknown_path_is_404_and_a_wrong_method_405(http: httpx.Client) -> None:
    problem(http.get("/nowhere"), 404, "not-found")
    for method, path in (("GET", "/generate"), ("DELETE", "/jobs"), ("POST", "/healthz"), ("PROPFIND", "/jobs")):
        answer = http.request(method, path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"]


async def test_an_unforeseen_error_is_a_500_that_tells_nothing(store_settings: Settings) -> None:
    app = create_app(store_settings)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        answer = await client.get("/broken")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_no_refused_request_leaves_a_job(http: httpx.Client) -> None:
    before = http.get("/jobs").json()
    assert http.post("/generate", json=body(model="dalle")).is_error
    assert http.get("/jobs").json() == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["model", "condition", "num_images", "seed", "budget", "verifier", "search", "sampler", "stop", "priority", "x"]
)
INNER = st.sampled_from(
    ["class", "prompt", "nfe", "forwards", "seconds", "name", "algorithm", "round_size", "method", "steps", "score"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fields=st.dictionaries(FIELDS, JSON | st.dictionaries(INNER, JSON, max_size=3), max_size=3))
def test_any_json_is_accepted_or_refused_with_a_field(http: httpx.Client, fields: dict[str, Any]) -> None:
    text = json.dumps(body(**fields))
    answer = http.post("/generate", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (202, 400, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["errors"]


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_without_a_fault(http: httpx.Client, content: bytes) -> None:
    answer = http.post("/generate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
