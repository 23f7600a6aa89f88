"""How many replicas each verifier has, and what one of them takes."""

from __future__ import annotations

import tomllib

from pydantic import Field, TypeAdapter

from sitsearch.models.verifiers.registry import VERIFIER_KINDS, stands_alone
from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.settings import Settings


class Pool(Schema):
    """One verifier's deployment.

    Attributes:
        replicas: processes that score.
        batch: images of one call of the network.
        gpus: share of a GPU that one replica takes; several replicas, also of different verifiers, may share one.
        cpus: the same of CPUs, for Ray's placement.
    """

    replicas: int = Field(1, ge=1)
    batch: int = Field(32, ge=1)
    gpus: float = Field(0, ge=0)
    cpus: float = Field(0.5, ge=0)


def verifier_pools(settings: Settings) -> dict[str, Pool]:
    """The pool of every verifier that is served: those of the settings, of the pools file, and plug-ins' own.

    Raises:
        OSError, tomllib.TOMLDecodeError, pydantic.ValidationError: the pools file cannot be read, or says what a pool
            does not have; the error names the verifier and the field.
    """
    common = Pool(replicas=settings.verifier_replicas, batch=settings.batch, gpus=settings.verifier_gpus)
    plugins = [kind for kind in VERIFIER_KINDS.plugins() if stands_alone(kind)]
    pools = dict.fromkeys((*settings.verifiers, *plugins), common)
    if settings.verifier_pools is not None:
        tables = tomllib.loads(settings.verifier_pools.read_text())
        defaults = common.model_dump()
        merged = {name: defaults | table if isinstance(table, dict) else table for name, table in tables.items()}
        pools |= TypeAdapter(dict[str, Pool]).validate_python(merged)
    return pools
