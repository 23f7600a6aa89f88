"""What the bits of images and scores depend on besides recipes: whose weights, on what device, computed how."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sitsearch.workers.jobs.base import Schema


class Fingerprint(Schema):
    """What a network's results depend on besides its inputs; fields that do not apply are None.

    Attributes:
        weights: SHA-256 of a card and all its files (`sitsearch.models.card_files.CardFile.digest`); empty if unknown.
        torch: its version.
        device: the GPU's name, or the CPU's instruction set.
        threads: of the CPU.
        dtype: precision of the weights.
        batch: rows of one forward, at most.
        deterministic: forwards are padded, so that results do not depend on what else is computed.
        compiled: the network is.
    """

    weights: str = ""
    torch: str = ""
    device: str = ""
    threads: int | None = Field(None, exclude_if=lambda value: value is None)
    dtype: str | None = Field(None, exclude_if=lambda value: value is None)
    batch: int | None = Field(None, exclude_if=lambda value: value is None)
    deterministic: bool | None = Field(None, exclude_if=lambda value: value is None)
    compiled: bool | None = Field(None, exclude_if=lambda value: value is None)

    def differences(self, other: Fingerprint) -> list[str]:
        """In what the two differ, as `field: this, that`."""
        fields = type(self).model_fields
        values = ((name, getattr(self, name), getattr(other, name)) for name in fields)
        return [f"{name}: {_short(one)}, {_short(two)}" for name, one, two in values if one != two]


class Origin(Schema):
    """What made a round: the samplers, each kind of replica once, and the verifiers by name."""

    samplers: tuple[Fingerprint, ...] = ()
    verifiers: dict[str, Fingerprint] = Field(default_factory=dict)


def differing(origins: Iterable[Origin]) -> list[str]:
    """In what the samplers, and the verifiers of one name, of some rounds differ; empty if in nothing."""
    found: dict[str, None] = {}
    sampler: Fingerprint | None = None
    verifiers: dict[str, Fingerprint] = {}
    for origin in origins:
        for one in origin.samplers:
            sampler = sampler or one
            found |= dict.fromkeys(f"sampler's {text}" for text in sampler.differences(one))
        for name, one in origin.verifiers.items():
            found |= dict.fromkeys(f"{name}'s {text}" for text in verifiers.setdefault(name, one).differences(one))
    return [*found]


def _short(value: object) -> str:
    """A value as a sentence shows it; of a checksum the first digits."""
    text = str(value)
    return text[:12] if len(text) == 64 else text or "unknown"
