"""Recipes: the few bytes of JSON from which a candidate's every random draw can be made again.

A recipe is a start noise, named by `(seed, round, index)`, and the operations that led from it to the candidate. Every
random number is a function of the recipe's seed, an operation's `(round, index)` and the operation's kind (see
models/noise.py), so that no latent ever has to be kept: latents are a cache.

| operation | from x at t | to |
|---|---|---|
| `neighbor` | start noise | a point on the sphere of its norm, at a given cosine from it |
| `blend` | start noise | sqrt(1 - s^2) x + s eps, again N(0, I) |
| `integrate` | x at t | x at a later t, along the sampler's ODE or SDE |
| `renoise` | x at t | x at an earlier t, by the forward process |
| `perturb` | x at t | x + s eps, at the same t |

An integration may be guided: by a verifier's gradient, or by samples whose scores are known.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sitsearch.workers.jobs.base import MAX_SEED, MAX_STEPS, Schema
from sitsearch.workers.jobs.guides import Gradient, Guide, Lookahead

Number = Annotated[int, Field(ge=0)]
Time = Annotated[float, Field(ge=0, le=1)]


class Neighbor(Schema):
    """A neighbour of the start noise: `|x| (c u + sqrt(1 - c^2) w)`, w a random unit vector orthogonal to u = x/|x|."""

    op: Literal["neighbor"] = "neighbor"
    round: Number
    index: Number
    cosine: Annotated[float, Field(ge=-1, le=1)]


class Blend(Schema):
    """A mutation of the start noise that stays Gaussian: `sqrt(1 - s^2) x + s eps`."""

    op: Literal["blend"] = "blend"
    round: Number
    index: Number
    strength: Annotated[float, Field(ge=0, le=1)]


class Nudge(Schema):
    """A change of a step's noise: plus `U(0, radius) sqrt(d) u`, u a random unit vector, d the dimension."""

    round: Number
    index: Number
    radius: Annotated[float, Field(ge=0)]


class Integrate(Schema):
    """Along the sampler's differential equation to a later time, in `steps` steps of its (shifted) time grid.

    An SDE's noises are draws `(round, index)`; `nudges` change the first of them, in order. `guide` moves the data
    prediction on the way.
    """

    op: Literal["integrate"] = "integrate"
    to: Time
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    round: Number = 0
    index: Number = 0
    nudges: tuple[Nudge, ...] = ()
    guide: Guide | None = Field(None, exclude_if=lambda guide: guide is None)


class Renoise(Schema):
    """By the forward process to an earlier time (Ma et al. 2025, section 3.1, search over paths, step 2)."""

    op: Literal["renoise"] = "renoise"
    to: Time
    round: Number
    index: Number


class Perturb(Schema):
    """`x + scale eps` at the same time."""

    op: Literal["perturb"] = "perturb"
    round: Number
    index: Number
    scale: Annotated[float, Field(ge=0)]


Op = Annotated[Neighbor | Blend | Integrate | Renoise | Perturb, Field(discriminator="op")]
AtNoise = (Neighbor, Blend)


class Recipe(Schema):
    """A start noise and what was done to it, in order; `method` is the sampling method, if not the request's."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    round: Number
    index: Number
    method: Annotated[str, Field(max_length=50)] | None = Field(None, exclude_if=lambda method: method is None)
    ops: tuple[Op, ...] = ()

    def then(self, *ops: Op) -> Recipe:
        """This recipe with further operations."""
        return self.model_copy(update={"ops": (*self.ops, *ops)})

    def prefix(self, ops: int) -> Recipe:
        """The recipe of the state after the first `ops` operations."""
        return self.model_copy(update={"ops": self.ops[:ops]})

    @property
    def time(self) -> float:
        """The time t at which the recipe ends; 0 is noise, 1 a finished image."""
        for op in reversed(self.ops):
            if isinstance(op, Integrate | Renoise):
                return op.to
        return 0.0

    @property
    def finished(self) -> bool:
        """It ends in an image rather than midway."""
        return self.time == 1.0

    @property
    def guide(self) -> Gradient | Lookahead | None:
        """What guides its last integration."""
        return next((op.guide for op in reversed(self.ops) if isinstance(op, Integrate)), None)

    @property
    def guided(self) -> bool:
        """One of its integrations is guided."""
        return any(isinstance(op, Integrate) and op.guide is not None for op in self.ops)

    @property
    def follows_gradients(self) -> bool:
        """One of them follows a verifier's gradient."""
        return any(isinstance(op, Integrate) and isinstance(op.guide, Gradient) for op in self.ops)

    @property
    def noise(self) -> Recipe:
        """The part of it that lies at t = 0: its start noise with the neighbours and blends that changed it."""
        count = next((i for i, op in enumerate(self.ops) if not isinstance(op, AtNoise)), len(self.ops))
        return self.prefix(count)


class Reference(Schema):
    """A finished sample by which others are guided, see `Lookahead`; `reward` is its score in standard units."""

    recipe: Recipe
    reward: float
