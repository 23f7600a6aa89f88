"""Candidates' images as PNG files that carry their own recipe and scores."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image, PngImagePlugin

from sitsearch.workers.jobs.job import Candidate

#: Pixels of a thumbnail's longer side, and those of an image that loses nothing.
THUMBNAIL, LOSSLESS = 128, 64


def encode_png(image: np.ndarray, candidate: Candidate) -> bytes:
    """PNG of `image [H, W, 3]` uint8 with `sitsearch:recipe` and `sitsearch:scores` (JSON) in its text chunks."""
    info = PngImagePlugin.PngInfo()
    info.add_text("sitsearch:recipe", candidate.recipe.model_dump_json())
    info.add_text("sitsearch:scores", json.dumps(candidate.scores))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def encode_thumbnail(image: np.ndarray) -> bytes:
    """A WebP of `image [H, W, 3]` uint8, at most `THUMBNAIL` pixels wide and high; of a small one without any loss."""
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small = max(image.shape[:2]) <= LOSSLESS
    picture.save(buffer, "WEBP", lossless=small, quality=20 if small else 82, method=0 if small else 2)
    return buffer.getvalue()


def decode_png(png: bytes) -> np.ndarray:
    """`[H, W, 3]` uint8 of a PNG file."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
