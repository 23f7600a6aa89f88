"""The pieces that a proof is made of: the tree hash, PNG texts, fingerprints."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sitsearch.workers.jobs.chunks import texts, with_text
from sitsearch.workers.jobs.fingerprint import Fingerprint, Origin, differing
from sitsearch.workers.jobs.merkle import MerkleTree

#: Entries and tree hashes of the reference implementation of Certificate Transparency (merkle_tree_test.cc).
ENTRIES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_the_tree_hash_is_that_of_rfc_6962(size: int) -> None:
    tree = MerkleTree(bytes.fromhex(entry) for entry in ENTRIES[:size])
    assert (tree.size, tree.root) == (size, ROOTS[size])


def test_a_text_chunk_is_added_where_every_reader_finds_it() -> None:
    buffer, pixels = io.BytesIO(), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(buffer, "PNG")
    png = with_text(buffer.getvalue(), "sitsearch:proof", '{"a": 1}')
    with Image.open(io.BytesIO(png)) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.text == {"sitsearch:proof": '{"a": 1}'}  # type: ignore[attr-defined]

    assert texts(png) == {"sitsearch:proof": '{"a": 1}'}


def test_what_differs_between_rounds_is_named() -> None:
    old, new = Fingerprint(torch="2.14", device="A", weights="a" * 64), Fingerprint(torch="2.15", device="A")
    judge = {"clip": Fingerprint(weights="b" * 64)}
    assert differing([Origin(samplers=(old,), verifiers=judge), Origin(samplers=(old,), verifiers=judge)]) == []
    assert differing([Origin(samplers=(old,), verifiers=judge), Origin(samplers=(old, new))]) == [
        "sampler's weights: aaaaaaaaaaaa, unknown",
        "sampler's torch: 2.14, 2.15",
    ]
