"""Scorers that the scripted server can be: both score an image by its brightness."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from tests.models.verifiers.server import Reply


def picture(png: str) -> np.ndarray:
    """`[H, W, 3]` uint8 of a PNG in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png, validate=True))))


def remote_scores(body: Any) -> Reply:
    """The wire format of `sitsearch.models.verifiers.remote`, answered in the reverse order."""
    scores = [{"index": row["index"], "score": float(picture(row["png"]).mean()) / 255} for row in body["images"]]
    return 200, {}, {"scores": scores[::-1]}


def judge_verdict(body: Any) -> Reply:
    """A chat completion that holds to the schema it was given."""
    schema = body["response_format"]["json_schema"]["schema"]
    url = body["messages"][1]["content"][1]["image_url"]["url"]
    mark = round(float(picture(url.removeprefix("data:image/png;base64,")).mean()) / 255 * 10)
    verdict = {name: mark if name != "observation" else "a picture" for name in schema["required"]}
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": json.dumps(verdict)}}]}
