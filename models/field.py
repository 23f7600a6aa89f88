"""The network of a generator as a function of state and time, for what follows the flow outside the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Generator, SiTGenerator
from sitsearch.models.guidance import Guidance

#: `(x [B, ...], t [B])` to the prediction `[B, ...]` of a network whose conditions are fixed, row by row.
Field = Callable[[Tensor, Tensor], Tensor]


def conditioned(generator: Generator, conditions: Sequence[Condition], guidance: Guidance | None = None) -> Field:
    """The (guided) prediction of any generator, without gradients: what `invert` needs.

    Args:
        generator: the model.
        conditions: one for each row of the `x` that the field will be given.
        guidance: None is no guidance. Its channels win over the generator's own.

    Raises:
        ValueError: a condition does not suit the model; from the field, `x` has another number of rows.
    """
    rows, null = generator.rows(conditions), generator.unconditional(len(conditions))

    def evaluate(x: Tensor, t: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        return generator.evaluate(x.float(), t.float(), rows).to(x.device, x.dtype)

    return _guided(evaluate, rows, null, guidance or Guidance())


def differentiable(generator: SiTGenerator, conditions: Sequence[Condition], guidance: Guidance | None = None) -> Field:
    """The same for a SiT, with gradients with respect to `x`: what `log_likelihood` needs.

    The conditional density is that of `guidance` None; a guided field transports the noise to some density too, but not
    to one that training made anything like the data's.

    Raises:
        ValueError: as `conditioned`.
    """
    rows, null = generator.rows(conditions), generator.unconditional(len(conditions))

    def evaluate(x: Tensor, t: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        out: Tensor = generator.net(
            x.to(generator.device, generator.dtype), t.to(generator.device), rows[0].to(generator.device)
        )
        return out.to(x.device, x.dtype)

    return _guided(evaluate, rows, null, guidance or Guidance())


def _guided(
    evaluate: Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor],
    rows: tuple[Tensor, ...],
    null: tuple[Tensor, ...],
    guidance: Guidance,
) -> Field:
    def field(x: Tensor, t: Tensor) -> Tensor:
        if len(x) != len(rows[0]):
            raise ValueError(f"the field was made for {len(rows[0])} rows, not {len(x)}")
        conditional = evaluate(x, t, rows)
        if not guidance.active(float(t[0])):  # all rows of an inversion stand at one time
            return conditional
        return guidance.combine(conditional, evaluate(x, t, null))

    return field


def without_gradients(field: Field) -> Field:
    """The field under `torch.no_grad`."""

    def evaluate(x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return field(x, t)

    return evaluate
