"""What `sitsearch verifiers bench` measures."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from sitsearch.models.catalog import load_verifier
from sitsearch.models.errors import UnknownCard
from sitsearch.service.cli import main
from sitsearch.workers.studies.verifier_bench import accuracy, bench, fitting, rank_correlation, sampled


def test_ranks_agree_whatever_the_scale_and_ties_share_theirs() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2], [1, 1, 2]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [1, 3, 3]) == pytest.approx(0.866, abs=1e-3)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_all_verifiers_of_the_models_pictures_are_measured_unasked() -> None:
    assert {"classifier", "clip_score", "aesthetic", "dinov2", "sharpness", "contrast"} <= set(fitting("glyphs"))


def test_samples_go_through_the_classes_in_turn() -> None:
    pictures, _, conditions = sampled("glyphs", 3, steps=1)
    assert pictures.shape == (3, 32, 32, 3) and pictures.dtype == torch.uint8
    assert [condition.class_index for condition in conditions] == [0, 1, 2]
    assert conditions[0].prompt == "a picture of the character A"


def test_accuracy_is_of_labelled_pictures_and_only_where_a_class_is_asked() -> None:
    found = accuracy(load_verifier("auditor"), "glyphs")
    assert found is not None and found > 0.9
    assert accuracy(load_verifier("contrast"), "glyphs") is None
    assert accuracy(load_verifier("auditor"), "unlabelled") is None


def test_an_unknown_verifier_is_refused() -> None:
    with pytest.raises(UnknownCard, match="nosuch"):
        bench(["nosuch"], samples=2, steps=1)


def test_the_command_prints_tables_or_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sitsearch", "verifiers", "bench", "contrast", "sharpness", "--samples", "8", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["verifiers"]) == {"contrast", "sharpness"} and found["samples"] == 8
    assert found["agreement"]["contrast"]["contrast"] == pytest.approx(1)
    assert all(rate > 0 for rate in found["verifiers"]["contrast"]["images_per_second"].values())
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "rank correlation on 8 pictures" in shown and "sharpness" in shown
