"""The studies of prompts and of verifier hacking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.training.glyphs.verifiers.captions import canonical
from sitsearch.models.training.glyphs.verifiers.probe import load_probe
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.studies import attribute_study, hacking_study
from sitsearch.workers.studies.attribute_study import contact_sheet, search_for
from sitsearch.workers.studies.attributes import ASKED, ATTRIBUTES, attributes_had

SAMPLER = {"method": "euler", "steps": 2, "guidance": 1.0}


def test_the_prompts_say_every_attribute_in_words() -> None:
    assert canonical(ASKED[0]) == "a bold red italic serif Q on white"
    assert len({canonical(glyph) for glyph in ASKED}) == len(ASKED) == 12
    assert all(getattr(glyph, name) is not None for glyph in ASKED for name in ATTRIBUTES)


def test_more_candidates_never_score_lower_and_the_judge_says_something_of_every_winner() -> None:
    engine = Engine(load_generator("glyphs"), batch=8, deterministic=False)
    verifiers = {name: load_verifier(name) for name in ("clip_score", "auditor")}
    found = [search_for(engine, verifiers, ASKED[0], candidates=n, seed=3, sampler=SAMPLER) for n in (1, 8)]
    (_, one), (_, eight) = found
    assert (one["candidates"], eight["candidates"]) == (1, 8) and eight["nfe"] == 16
    assert eight["score"] >= one["score"]
    had = attributes_had(load_probe(), torch.stack([picture for picture, _ in found]), [ASKED[0]] * 2)
    assert all(set(has) == set(ATTRIBUTES) and {True, False} >= set(has.values()) for has in had)


def test_shares_are_of_the_winners_of_equal_effort() -> None:
    def record(candidates: int, **has: bool) -> dict[str, Any]:
        every = dict.fromkeys(ATTRIBUTES, True) | has
        return {"candidates": candidates, "nfe": 8 * candidates, "score": 1.0, "audit": -0.1, "has": every}

    one, four = attribute_study.summary([record(4), record(1, ink=False), record(4, ink=False, paper=False)])
    assert (one["candidates"], one["ink"], one["all_six"], one["of_six"]) == (1, 0, 0, 5)
    assert (four["ink"], four["paper"], four["weight"], four["all_six"], four["of_six"]) == (0.5, 0.5, 1, 0.5, 5)


def test_the_contact_sheet_has_a_row_a_prompt() -> None:
    picture = torch.zeros(32, 32, 3, dtype=torch.uint8)
    small, large = (contact_sheet([("a Q", [picture, picture])] * rows, (1, 4)) for rows in (1, 3))
    assert small.width == large.width and large.height > small.height


def searched(selectors: list[str], hacking: list[str], *scores: float) -> dict[str, Any]:
    curve = [{"nfe": 8 * i, "score": float(i), "auditor": s, "dinov2": 2 * s} for i, s in enumerate(scores, 1)]
    return {"selectors": selectors, "character": "A", "hacking": hacking, "curve": curve}


def test_the_hacking_table_tells_ends_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak, both = ["contrast"], ["contrast", "classifier"]
    records = [searched(weak, ["auditor"], -0.5, -1.0), searched(weak, [], -0.5, -0.4), searched(both, [], -1.0, -0.2)]
    hacking_study.report(tmp_path, records)
    shown = capsys.readouterr().out
    assert "| contrast | 2 | 50% | -0.50 | -0.70 | 0.50 |" in shown
    assert "| contrast+classifier | 1 | 0% | -1.00 | -0.20 | 0.00 |" in shown
    assert json.loads((tmp_path / "hacking.json").read_text())["contrast"]["flagged"] == 0.5
    assert (tmp_path / "hacking.png").stat().st_size > 1000
