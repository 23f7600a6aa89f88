"""The generator as its own verifier: likelihood of an image, and how well it is restored from noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.field import differentiable
from sitsearch.models.generator import Generator, SiTGenerator
from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.likelihood import log_likelihood
from sitsearch.models.noise import gaussian
from sitsearch.models.verifiers.base import UNBOUNDED, Need, Verifier, check_count, check_images
from sitsearch.models.verifiers.errors import BadOptions


def states_of(generator: Generator, images: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` float32 in [0, 1], rounded to 8 bits, to the generator's states at t = 1."""
    return generator.decoder.encode((images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())


class Likelihood(Verifier):
    """log p(image | condition) under a SiT, in nats a dimension, along its probability-flow ODE.

    See `sitsearch.models.likelihood`; the density is that of the unguided flow, in the units of its states. The
    likeliest image is not a typical one: a flat image can have a higher density than any photograph (arXiv 1810.09136),
    so it serves better among an ensemble's members or as an auditor than alone.

    Args:
        weights: none of its own.
        device: where it runs.
        generator: the model; its card's name.
        steps: of Heun's method; each costs two evaluations and two backward passes an image.
        probes: of the divergence.

    Raises:
        BadOptions: the model is not a SiT.
    """

    needs: frozenset[Need] = frozenset({"class"})
    padded = False

    def __init__(
        self,
        weights: None = None,
        *,
        generator: Generator,
        steps: Annotated[int, Field(ge=1, le=1000)] = 10,
        probes: Annotated[int, Field(ge=1, le=100)] = 1,
        device: str = "cpu",
    ) -> None:
        if not isinstance(generator, SiTGenerator):
            raise BadOptions("the likelihood is offered for SiT models only")
        self.generator, self.steps, self.probes, self.device = generator, steps, probes, device

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        states = states_of(self.generator, images)
        # One by one: a row's probes depend on its place, and a score must not.
        found = [self._log_p(state[None], condition) for state, condition in zip(states, conditions, strict=True)]
        return torch.tensor(found, dtype=torch.float32) / states[0].numel()

    def _log_p(self, state: Tensor, condition: Condition) -> float:
        found = log_likelihood(
            differentiable(self.generator, [condition]),
            state,
            interpolant=self.generator.interpolant,
            prediction=self.generator.prediction,
            steps=self.steps,
            probes=self.probes,
        )
        return float(found.log_p[0])


class Reconstruction(Verifier):
    """How well a generator restores an image from noise, as minus the mean squared error of its data predictions.

    As in the diffusion classifier (arXiv 2303.16203, section 3): the image is noised to several levels, with the same
    noise for every image, and the prediction of the data is held against the image. Under the asked class's condition,
    unguided; the error is in the units of the states. One forward an image and level.

    Args:
        weights: none of its own.
        device: where it runs.
        generator: the model; its card's name.
        levels: noise levels, evenly spread within (0, 1).
        seed: of the noises.
    """

    needs: frozenset[Need] = frozenset({"class"})
    range = (UNBOUNDED[0], 0.0)

    def __init__(
        self,
        weights: None = None,
        *,
        generator: Generator,
        levels: Annotated[int, Field(ge=1, le=1000)] = 8,
        seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
        device: str = "cpu",
    ) -> None:
        self.generator, self.device = generator, device
        self.times = [(level + 0.5) / levels for level in range(levels)]
        self.noises = [gaussian(seed, 0, level, generator.shape) for level in range(levels)]

    @torch.inference_mode()
    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        generator, path = self.generator, interpolant_named(self.generator.interpolant)
        data, rows = states_of(generator, images), generator.rows(conditions)
        total = torch.zeros(len(data))
        for time, noise in zip(self.times, self.noises, strict=True):
            t = torch.full((len(data),), time)
            x = path.interpolate(data, noise.expand_as(data), t)
            restored = path.convert(generator.evaluate(x, t, rows), x, t, generator.prediction, "data")
            total -= (restored - data).square().flatten(1).mean(dim=1)
        return total / len(self.times)
