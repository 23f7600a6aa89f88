"""Who says what the winners are worth, and takes no part in selecting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from sitsearch.models.catalog import load_verifier
from sitsearch.models.training.glyphs.verifiers.captions import Glyph
from sitsearch.models.training.glyphs.verifiers.probe import load_probe
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.studies.attributes import attributes_had
from sitsearch.workers.studies.comparison.tasks import Asked

#: How many of the six attributes asked for a picture has.
ATTRIBUTES_JUDGE = "attributes"

#: Pictures `[N, H, W, 3]` uint8, and what was asked of each, to figures; higher is better.
Judge = Callable[[Tensor, Sequence[Asked]], list[float]]


def judge_named(name: str, *, device: str, batch: int) -> Judge:
    """The judge `attributes`, or the verifier of that name.

    Args:
        name: in `Task.judges`.
        device: where it runs.
        batch: pictures of one call.

    Raises:
        UnknownCard: no such verifier; see `load_verifier`.
    """
    if name == ATTRIBUTES_JUDGE:
        probe = load_probe()  # sees one picture a search: on the CPU, whatever the device

        def attributes(pictures: Tensor, asked: Sequence[Asked]) -> list[float]:
            return [float(sum(has.values())) for has in attributes_had(probe, pictures, [_glyph(a) for a in asked])]

        return attributes
    scorer = Scorer(load_verifier(name, device=device), batch=batch)
    return lambda pictures, asked: scorer.score(pictures, [one.condition for one in asked])


def _glyph(asked: Asked) -> Glyph:
    if asked.glyph is None:
        raise ValueError(f"the condition {asked.id!r} asks for no attributes")
    return asked.glyph
