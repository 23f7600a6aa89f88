"""Images that are held against their proofs: honest ones hold, forged ones fail, and other machines leave it open."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.jobs.images import decode_png, encode_png
from sitsearch.workers.studies.tampering import MODEL, SPOT, TAMPERINGS, VERIFIER, Claim, honest, pixel, trials
from sitsearch.workers.verify import Workshop, verify


def test_honest_images_of_every_algorithm_hold() -> None:
    assert {claim.proof.job.partition("-")[0]: outcome for claim, outcome in trials("honest", 14, spot=3)} == {
        claim: "holds"
        for claim in [
            "auto",
            "random",
            "zero_order",
            "paths",
            "backtracking",
            "epsilon_greedy",
            "evo_search",
            "fk_steering",
            "lookahead",
            "revisit",
            "rollover",
            "successive_halving",
            "tree_search",
            "trust_region",
        ]
    }


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_forged_ones_are_found_out(kind: str) -> None:
    assert [outcome for _, outcome in trials(kind, 2, SPOT, seed=5)] == ["fails"] * 2


@pytest.fixture(scope="module")
def claim() -> Claim:
    return honest(Engine(load_generator(MODEL)), {VERIFIER: load_verifier(VERIFIER)}, "random", 3)


def test_on_another_machine_other_bits_prove_nothing(claim: Claim) -> None:
    (origin,) = claim.proof.origins
    sampler = origin.samplers[0].model_copy(update={"device": "NVIDIA H100"})
    elsewhere = origin.model_copy(update={"samplers": (sampler,)})
    moved = replace(claim, proof=claim.proof.model_copy(update={"origins": (elsewhere,)}))
    forged = pixel(moved, random.Random(0))
    verdict = verify(forged.file, workshop=Workshop())
    image = next(check for check in verdict.checks if check.name == "image")
    assert image.outcome == "open" and "NVIDIA H100" in image.detail
    assert verify(moved.file, workshop=Workshop()).outcome == "holds"  # equal bits do


def test_without_its_log_the_image_alone_is_looked_at(claim: Claim) -> None:
    verdict = verify(claim.file)
    assert [check.name for check in verdict.checks] == ["weights of glyphs", "weights of classifier", "image", "scores"]
    assert verdict.outcome == "holds"


def test_a_log_that_went_on_since_still_holds(claim: Claim) -> None:
    verdict = verify(claim.file, [*claim.log, "{not a round"])
    assert verdict.outcome == "holds"


def test_a_file_without_a_proof_is_refused(claim: Claim) -> None:
    with pytest.raises(ValueError, match="carries no proof"):
        verify(encode_png(decode_png(claim.file), claim.proof.candidate))
    with pytest.raises(ValueError, match="not a PNG"):
        verify(b"GIF89a")
