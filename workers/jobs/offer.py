"""What a deployment offers: published by the workers when they come up, read by the gateway."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import StrictBool

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.fingerprint import Fingerprint
from sitsearch.workers.jobs.request import SamplerChoice


class SamplerOffer(Schema):
    """A sampling method and what it costs.

    Attributes:
        evaluations_per_step: field evaluations of one step (of one attempt, if adaptive).
        stochastic: it draws noise on the way.
        adaptive: it chooses its steps itself, and `steps` is the most attempts that it makes.
        ends: its last step, of one evaluation, adds no noise (unless the request says otherwise).
        inner: a step takes as many times `evaluations_per_step` as the request's `inner` says.
        noise_first: a step's first evaluation lies at a noised state, so that one made at the state itself is no use.
    """

    name: str
    evaluations_per_step: int
    stochastic: bool = False
    adaptive: bool = False
    ends: bool = False
    inner: bool = False
    noise_first: bool = False


class ModelOffer(Schema):
    """A model that can be sampled here; `template` makes a text of a class name, for verifiers that read text.

    `forwards_per_second` was measured when the sampler came up: full batches, of one replica. That warm-up took
    `warm_up_seconds`, compilation included, and `warm_up_forwards` rows, which are counted nowhere else. `fingerprint`
    is that replica's.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    image_size: int
    parameters: int
    macs_per_forward: int
    samplers: tuple[SamplerOffer, ...]
    default_sampler: SamplerChoice
    license: str
    template: str | None = None
    forwards_per_second: float | None = None
    warm_up_seconds: float | None = None
    warm_up_forwards: int | None = None
    fingerprint: Fingerprint | None = None


class VerifierOffer(Schema):
    """A verifier that can select here, which models' images it can score, and how fast.

    One of `sets` judges a candidate by the set of images that it would join; one with `features` tells how far apart
    images are; one that is `differentiable` can guide. `models` empty means all. The schema tells what a card may set;
    requests set none of it. `fingerprint` is that of one replica.
    """

    name: str
    title: str
    needs: tuple[Literal["class", "prompt", "preview"], ...]
    models: tuple[str, ...]
    range: tuple[float | None, float | None] = (None, None)
    images_per_second: float | None = None
    sets: bool = False
    features: bool = False
    differentiable: bool = False
    options_schema: dict[str, Any] | None = None
    fingerprint: Fingerprint | None = None


class AlgorithmOffer(Schema):
    """A search algorithm with the JSON schema of its options; a `stochastic` one needs an SDE sampler."""

    name: str
    title: str
    reference: str
    stochastic: bool = False
    options_schema: dict[str, Any]


class Offer(Schema):
    """All that a deployment offers; published to Redis by the workers and read by the gateway.

    `auditors` look at the winners of guided searches that name none.
    """

    models: tuple[ModelOffer, ...]
    verifiers: tuple[VerifierOffer, ...]
    algorithms: tuple[AlgorithmOffer, ...]
    deterministic: StrictBool
    auditors: tuple[str, ...] = ()
