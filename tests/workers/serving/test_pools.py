"""Verifier pools from settings and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sitsearch.workers.serving.pools import Pool, verifier_pools
from sitsearch.workers.settings import Settings


def test_without_a_file_every_verifier_has_the_common_pool() -> None:
    pools = verifier_pools(Settings(verifiers=("classifier", "fid"), verifier_replicas=2, batch=16, verifier_gpus=0.25))
    assert pools == dict.fromkeys(("classifier", "fid"), Pool(replicas=2, batch=16, gpus=0.25))


def test_a_file_gives_each_verifier_its_own_and_adds_others(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text("[classifier]\nreplicas = 3\ngpus = 0.1\n[sharpness]\nbatch = 256\n")
    pools = verifier_pools(Settings(verifiers=("classifier", "fid"), verifier_pools=file))
    assert pools == {
        "classifier": Pool(replicas=3, gpus=0.1),
        "fid": Pool(),
        "sharpness": Pool(batch=256),
    }


def test_what_a_pool_does_not_have_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text("[classifier]\nreplica = 3\n")
    with pytest.raises(ValidationError, match=r"classifier\.replica"):
        verifier_pools(Settings(verifier_pools=file))
