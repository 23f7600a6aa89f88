"""Contenders as the command line names them, and what is asked of them."""

from __future__ import annotations

import pytest

from sitsearch.workers.errors import UnknownName
from sitsearch.workers.studies.comparison.contenders import (
    Contender,
    contender_of,
    contenders_of,
    request_of,
    said_of,
)
from sitsearch.workers.studies.comparison.tasks import TASKS

CLASSES, PROMPTS = TASKS["classes"], TASKS["prompts"]


def test_a_contender_is_a_name_with_options_and_a_label() -> None:
    assert contender_of("random") == Contender("random", "random")
    few = contender_of('zero_order:{"neighbors": 4}')
    assert (few.label, few.algorithm, few.options) == ('zero_order:{"neighbors": 4}', "zero_order", {"neighbors": 4})
    glass = contender_of('fk-glass=fk_steering:{"preset": "paper", "sampler": {"method": "glass"}}')
    assert (glass.label, glass.algorithm) == ("fk-glass", "fk_steering")
    assert (glass.options, glass.sampler) == ({"preset": "paper"}, {"method": "glass"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random:", "a contender is `name`"),
        ("a=b=random", "a contender is `name`"),
        ("random:{neighbors}", "no JSON object"),
        ('random:{"sampler": "glass"}', "`sampler` of contender"),
    ],
)
def test_another_form_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        contender_of(text)


def test_unknown_algorithms_and_equal_labels_are_refused() -> None:
    with pytest.raises(UnknownName, match="ranndom"):
        contender_of("ranndom")
    with pytest.raises(ValueError, match="'random' is there 2 times"):
        contenders_of(["random", "zero_order", "random=zero_order"])


def test_the_sampler_is_the_tasks_but_for_what_the_contender_says() -> None:
    asked = CLASSES.conditions[3]
    by_algorithm = {
        name: request_of(CLASSES, contender_of(name), 60, asked, 2).sampler for name in ("random", "fk_steering")
    }
    assert by_algorithm["random"].method == "euler"
    assert by_algorithm["fk_steering"].method == "glass"
    assert by_algorithm["fk_steering"].norm == 1.0
    own = request_of(CLASSES, contender_of('fk_steering:{"sampler": {"method": "glass", "steps": 3}}'), 60, asked, 2)
    assert (own.sampler.method, own.sampler.steps, own.sampler.guidance) == ("glass", 3, 1.0)


def test_every_contender_searches_from_the_same_seed() -> None:
    asked = PROMPTS.conditions[5]
    requests = [request_of(PROMPTS, contender_of(name), 60, asked, 2) for name in ("random", "fk_steering")]
    assert [request.seed for request in requests] == [2005, 2005]
    assert requests[0].condition.prompt == asked.id == asked.condition.prompt


def test_the_log_says_options_and_sampler() -> None:
    contender = contender_of('few=zero_order:{"neighbors": 4, "sampler": {"shift": 2}}')
    assert said_of(request_of(CLASSES, contender, 60, CLASSES.conditions[0], 0)) == {
        "options": {"neighbors": 4},
        "sampler": {"method": "euler", "steps": 6, "guidance": 1.0, "shift": 2.0},
    }


def test_a_subset_of_conditions_is_even_and_keeps_their_places() -> None:
    assert len(CLASSES.conditions) == 62 and len(PROMPTS.conditions) == 12
    assert [asked.place for asked in PROMPTS.thinned(5).conditions] == [0, 2, 4, 7, 9]
    assert PROMPTS.thinned(20) == PROMPTS.thinned(None) == PROMPTS
