"""Guided requests: what is filled in, what is planned, and what is refused with the field and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from sitsearch.service.gateway.checks import admit
from sitsearch.service.gateway.planning import plan_view
from sitsearch.service.gateway.problems import Invalid
from sitsearch.workers.jobs.offer import Offer, VerifierOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.lessons.record import Learnt
from tests.service.gateway.conftest import OFFER, body

VERIFIERS = (
    VerifierOffer(name="classifier", title="", needs=("class",), models=("glyphs",), differentiable=True),
    VerifierOffer(name="looks", title="", needs=(), models=(), differentiable=True, images_per_second=100.0),
    VerifierOffer(name="judge", title="", needs=(), models=()),
    VerifierOffer(name="auditor", title="", needs=("class",), models=("glyphs",), differentiable=True),
    VerifierOffer(name="reader", title="", needs=("prompt",), models=()),
)
GUIDING = OFFER.model_copy(update={"verifiers": VERIFIERS, "auditors": ("reader", "auditor")})


def admitted(offer: Offer = GUIDING, **fields: Any) -> GenerateRequest:
    return admit(GenerateRequest.model_validate(body(**fields)), offer, max_nfe=100_000)[0]


def test_a_guide_without_a_verifier_follows_what_selects_and_is_audited() -> None:
    request = admitted(guide={"strength": 0.7})
    assert request.gradient is not None
    assert (request.gradient.verifier, request.gradient.strength) == ("classifier", 0.7)
    assert request.auditors == ("auditor",)  # the other default needs a prompt
    assert admitted(guide="looks").auditors == ("auditor",)
    assert admitted(guide="looks", auditors=["judge"]).auditors == ("judge",)
    assert admitted(guide={"verifier": "auditor", "unaudited": True}).auditors == ()


def test_auto_guides_where_it_can_and_is_audited_and_does_not_where_it_is_told_so() -> None:
    request = admitted(search="auto")
    assert request.gradient is not None and request.gradient.verifier == "classifier"
    assert request.auditors == ("auditor",)
    for fields in ({"guide": "off"}, {"verifier": "judge"}):
        request = admitted(search="auto", **fields)
        assert request.gradient is None and request.auditors == ()
    assert admitted(GUIDING.model_copy(update={"auditors": ()}), search="auto").gradient is None
    ensemble = {"name": "ensemble", "members": ["judge", "looks"]}
    request = admitted(search="auto", verifier=ensemble)
    assert request.gradient is not None and request.gradient.verifier == "looks"


def test_a_search_that_steers_by_scores_is_audited_where_somebody_can() -> None:
    assert admitted(search="lookahead").auditors == ("auditor",)
    assert admitted(search="random").auditors == ()


@pytest.mark.parametrize(
    ("fields", "field", "slug"),
    [
        ({"guide": "judge"}, "guide.verifier", "verifier-unsuitable"),
        ({"guide": "nobody"}, "guide.verifier", "unknown-verifier"),
        ({"verifier": "judge", "guide": {}}, "guide.verifier", "verifier-unsuitable"),
        (
            {"guide": {}, "sampler": {"method": "euler"}, "budget": {"nfe": 400, "gradients": 13}},
            "budget.gradients",
            "budget-too-small",
        ),
        ({"guide": {"noise": 0.5}}, "guide.noise", "guide-unsuitable"),
        ({"guide": {}, "condition": {"classes": ["A", "B"]}}, "guide", "guide-unsuitable"),
        ({"guide": {}, "search": "lookahead"}, "guide", "guide-unsuitable"),
    ],
)
def test_what_cannot_be_guided_is_refused_by_its_field(fields: dict[str, Any], field: str, slug: str) -> None:
    with pytest.raises(Invalid) as refused:
        admitted(**fields)
    (error,) = refused.value.errors
    assert error.field == field
    if error.allowed:
        assert set(error.allowed) <= {"classifier", "looks", "auditor", "judge", "reader"}


def test_a_guided_search_that_nobody_can_audit_says_how_to_go_without() -> None:
    alone = GUIDING.model_copy(update={"auditors": ()})
    with pytest.raises(Invalid) as refused:
        admitted(alone, guide={})
    (error,) = refused.value.errors
    assert error.field == "auditors" and "guide.unaudited" in error.message
    assert admitted(alone, guide={"unaudited": True}).gradient is not None


def test_a_plan_counts_gradients_and_says_who_guides_and_who_audits() -> None:
    request = admitted(guide={"verifier": "looks"}, sampler={"method": "euler", "steps": 20}, verifier="classifier")
    view = plan_view(request, GUIDING, Learnt({}))
    assert view.plan.gradients == 20 * 15  # of 20 steps those that begin from 0.1 to 0.8
    assert any(
        "gradient of looks, 300 gradients" in line and "audited by auditor" in line for line in view.plan.explanation
    )
    plain = plan_view(admitted(sampler={"method": "euler", "steps": 20}), GUIDING, Learnt({}))
    assert plain.plan.gradients == 0 and view.seconds is not None and plain.seconds is not None
    assert view.seconds == pytest.approx(plain.seconds + 3 * 300 / 100, abs=0.1)


def test_a_budget_of_gradients_ends_the_search_that_would_take_more() -> None:
    request = admitted(guide={}, sampler={"method": "euler", "steps": 20}, budget={"nfe": 2000, "gradients": 500})
    plan = plan_view(request, GUIDING, Learnt({})).plan
    assert 0 < plan.gradients <= 500 and plan.nfe.unspent > 0
