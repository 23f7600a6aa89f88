"""What guides a trajectory, besides the model: how the data prediction is moved on the way.

Classifier-free guidance is part of the field that is sampled (`SamplerChoice.guidance`). These follow a verifier, by
the gradient of its score or by samples whose scores are known. A recipe's integrations carry what guided them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import MAX_STEPS, Schema

Time = Annotated[float, Field(ge=0, le=1)]
#: After this time nothing is guided: there what the data prediction is moved by weighs without bounds in the velocity.
LATEST = 0.95
#: Of verifiers whose score is a log-probability: about the gradient, by root mean square, where a picture of 32 x 32
#: still lacks a nat or more. On characters guided by the classifier, 60 NFE: score -0.31 without it, -0.04 with it.
LOG_PROBABILITY_CLIP = 0.1
Late = Annotated[float, Field(ge=0, le=LATEST)]


class GradientOptions(Schema):
    """How a verifier's gradient moves the data prediction, g its gradient there (MPGD, arXiv 2311.16424, algorithm 1).

    At the steps that begin within `interval`, of these every `every`-th of the grid, the data prediction D is moved by
    `strength` u sqrt(d) g / |g|: u = sigma / (alpha + sigma) is the noise level, 1 - t on the linear path, and
    u sqrt(d) about the length of what is still noise. The length is our choice: it makes a strength mean the same for
    every verifier and path.

    Attributes:
        strength: of the move; 0 moves nothing.
        interval: times between which steps are guided.
        every: 1 is every step.
        clip: gradients shorter than this, in score by root mean square of the data, move it proportionally less, and
            take as much less of a step's noise; None is `LOG_PROBABILITY_CLIP` of verifiers whose score is a
            log-probability, where one that is next to nothing says that there is nothing to gain, and 0 of others.
        views: shifted crops over which a gradient is averaged, against patterns that only the verifier sees; 0 takes
            the picture as it is.
        noise: share of a step's noise, of its variance, that the gradient takes (NoiseTilt, arXiv 2606.18066); None is
            0.3 of methods that draw noise where a step ends, and 0 of others.
        damped: let the strength be less where the data prediction is uncertain (arXiv 2606.02884).
    """

    strength: Annotated[float, Field(ge=0, le=10)] = 0.4
    interval: tuple[Time, Late] = (0.1, 0.8)
    every: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1
    clip: Annotated[float, Field(gt=0)] | None = None
    views: Annotated[int, Field(ge=0, le=16)] = 0
    noise: Annotated[float, Field(ge=0, le=1)] | None = None
    damped: bool = False

    @model_validator(mode="after")
    def _moves(self) -> GradientOptions:
        if self.interval[0] > self.interval[1]:
            raise ValueError("`interval` must be in order: [from, to], t = 0 being noise")
        if not self.strength and self.noise == 0:
            raise ValueError("needs a `strength` or a share of the `noise` above 0")
        return self


class Gradient(GradientOptions):
    """Guided by the gradient of the score by `verifier`."""

    by: Literal["gradient"] = "gradient"
    verifier: Annotated[str, Field(min_length=1, max_length=100)]


class Lookahead(Schema):
    """Guided by samples x_i whose scores are known (LiDAR, arXiv 2602.03211): D + s sum_i (w_i^r - w_i) x_i.

    w_i = softmax_i(-|x_t - alpha x_i|^2 / (2 sigma^2 T)) and w_i^r the same with lambda r_i added, r_i the reward. The
    temperature T is our own: without it the weights are all but one-hot in as many dimensions as a picture has.

    Attributes:
        references: the first so many of the references that the candidate came with are the x_i.
        weight: lambda.
        strength: s.
        temperature: T, in numbers that a state has.
        interval: times between which evaluations are guided.
    """

    by: Literal["lookahead"] = "lookahead"
    references: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(ge=0)]
    strength: Annotated[float, Field(ge=0)]
    temperature: Annotated[float, Field(gt=0)]
    interval: tuple[Time, Late]


Guide = Annotated[Gradient | Lookahead, Field(discriminator="by")]
