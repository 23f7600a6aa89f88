"""What is asked of an image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """What to draw, and what a verifier holds the image against.

    Attributes:
        class_index: index of a class, for models and verifiers that know classes.
        prompt: a text, for those that read one.
    """

    class_index: int | None = None
    prompt: str | None = None
