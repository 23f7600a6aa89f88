"""A scorer behind HTTP, with this wire format.

Request, `POST` to the operator's address, `application/json`:

    {"version": 1,
     "images": [{"index": 0, "png": "<base64>", "preview": "<base64>" or null,
                 "condition": {"class_index": 16 or null, "prompt": "a red Q" or null}}, ...]}

Answer, status 200, one entry for each index, in any order; scores are finite numbers, higher is better:

    {"scores": [{"index": 0, "score": 0.71}, ...]}

Any other status is a refusal; 408, 425, 429, 500, 502, 503 and 504 are tried again, after `Retry-After` where given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import (
    UNBOUNDED,
    Need,
    Verifier,
    check_count,
    check_images,
    class_indices,
    prompts_of,
)
from sitsearch.models.verifiers.endpoint import Endpoint, png_base64


class RemoteScorer(Verifier):
    """Scores from an HTTP endpoint that the operator names on the card; never from an address in a request.

    Args:
        weights: none.
        device: not used.
        url: where to post.
        asks: what the endpoint needs beyond the images.
        bounds: the least and the greatest score it gives; an answer outside is refused.
        batch: images of one request.
        key_env, timeout, retries, backoff, concurrency: see `sitsearch.models.verifiers.endpoint.Endpoint`.

    Raises:
        BadOptions: the address is not http or https, or the key's variable is not set.
    """

    padded = False

    def __init__(
        self,
        weights: None = None,
        *,
        url: str,
        asks: frozenset[Need] = frozenset(),
        bounds: tuple[float, float] = UNBOUNDED,
        batch: Annotated[int, Field(ge=1, le=256)] = 16,
        key_env: str | None = None,
        timeout: Annotated[float, Field(gt=0, le=600)] = 30.0,
        retries: Annotated[int, Field(ge=0, le=10)] = 3,
        backoff: Annotated[float, Field(gt=0)] = 0.5,
        concurrency: Annotated[int, Field(ge=1, le=256)] = 4,
        device: str = "cpu",
    ) -> None:
        self.endpoint = Endpoint(
            url, key_env=key_env, timeout=timeout, retries=retries, backoff=backoff, concurrency=concurrency
        )
        self.needs, self.range, self.batch, self.device = asks, bounds, batch, device

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        if "prompt" in self.needs:
            prompts_of(conditions, len(images))
        if "class" in self.needs:
            class_indices(conditions, len(images), 2**31)
        if "preview" in self.needs:
            if previews is None or previews.shape != images.shape:
                raise ValueError(f"this verifier needs previews {list(images.shape)}")
            check_images(previews, name="previews")
        rows = [
            {
                "index": index,
                "png": png_base64(image),
                "preview": png_base64(previews[index]) if previews is not None and "preview" in self.needs else None,
                "condition": {"class_index": condition.class_index, "prompt": condition.prompt},
            }
            for index, (image, condition) in enumerate(zip(images, conditions, strict=True))
        ]
        parts = [rows[start : start + self.batch] for start in range(0, len(rows), self.batch)]
        found: dict[int, float] = {}
        bodies: list[dict[str, Any]] = [{"version": 1, "images": part} for part in parts]
        for scores in self.endpoint.post_all(bodies, self._read):
            found |= scores
        return torch.tensor([found[index] for index in range(len(rows))], dtype=torch.float32)

    def _read(self, body: dict[str, Any], answer: Any) -> dict[int, float]:
        low, high = self.range
        scores = {entry["index"]: float(entry["score"]) for entry in answer["scores"]}
        asked = {row["index"] for row in body["images"]}
        if set(scores) != asked or len(answer["scores"]) != len(asked):
            raise ValueError(f"scores for {sorted(entry['index'] for entry in answer['scores'])}, not {sorted(asked)}")
        for score in scores.values():
            if not (math.isfinite(score) and low <= score <= high):
                raise ValueError(f"the score {score} is not a finite number in [{low}, {high}]")
        return scores
