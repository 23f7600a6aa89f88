"""A round in parts, each by a replica, and together again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from sitsearch.workers.search.runs.drive import Made


async def together(responses: Sequence[Any]) -> list[Any]:
    """Await Serve responses together; when the caller is cancelled or one fails, the others are cancelled too."""
    try:
        return list(await asyncio.gather(*responses))
    except BaseException:
        for response in responses:
            response.cancel()
        raise


def in_order(parts: Sequence[Made[np.ndarray]], places: Sequence[int]) -> Made[np.ndarray]:
    """The parts of a round as one; `places` are those of their samples in the round, part after part."""
    order = np.argsort(places)
    nfe = [count for part in parts for count in part.nfe]
    forwards = [count for part in parts for count in part.forwards]
    gradients = [count for part in parts for count in part.gradients]
    states = [part.states for part in parts if part.states is not None]
    previews = [part.previews for part in parts if part.previews is not None]
    broken = [bad for part in parts for bad in (part.broken or [False] * len(part.nfe))]
    return Made(
        images=np.concatenate([part.images for part in parts])[order],
        nfe=[nfe[i] for i in order],
        forwards=[forwards[i] for i in order],
        nfe_again=sum(part.nfe_again for part in parts),
        forwards_again=sum(part.forwards_again for part in parts),
        previews=np.concatenate(previews)[order] if previews else None,
        gradients=[gradients[i] for i in order] if gradients else (),
        gradients_again=sum(part.gradients_again for part in parts),
        states=np.concatenate(states)[order] if states else None,
        broken=[broken[i] for i in order],
        by=tuple(dict.fromkeys(one for part in parts for one in part.by)),
    )
