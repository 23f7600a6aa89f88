"""Interpolants x_t = alpha(t) x_data + sigma(t) x_noise (Ma et al. 2024, arXiv 2401.08740, sections 2.1 and 3).

Time runs from 0 (noise) to 1 (data). Coefficients take `t` of any shape and return that shape, in its dtype;
everything that also takes `x [B, ...]` takes `t [B]` (or a scalar tensor).

Three quantities divide by alpha (zero at t=0 on Linear and GVP) or by sigma (zero at t=1): `d_log_alpha`, the score,
and some conversions. There the divisor is kept at `FLOOR` or more, so results are finite on all of [0, 1] and exact
unless t is closer to that end than about `FLOOR`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

Prediction = Literal["velocity", "score", "noise", "data"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)

#: Smallest alpha or sigma that anything is divided by.
FLOOR = 1e-6


def like(t: Tensor, x: Tensor) -> Tensor:
    """`t [B]` (or a scalar) shaped `[B, 1, ...]` so that it multiplies `x [B, ...]`."""
    return t.reshape(-1, *[1] * (x.dim() - 1))


class Interpolant(ABC):
    """What Linear, GVP and VP have in common: conversions, the forward SDE and re-noising."""

    name: ClassVar[str]

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Coefficient of the data."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Coefficient of the noise."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """d sigma / dt."""

    def d_log_alpha(self, t: Tensor) -> Tensor:
        """d log alpha / dt; alpha is kept at `FLOOR` or more."""
        return self.d_alpha(t) / self.alpha(t).clamp(min=FLOOR)

    def noise_rate(self, t: Tensor) -> Tensor:
        """lambda(t) = d_log_alpha sigma - d_sigma: how fast noise turns into data, v = d_log_alpha x - lambda E."""
        return self.d_log_alpha(t) * self.sigma(t) - self.d_sigma(t)

    # --- paths ---------------------------------------------------------------------------------------------------

    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t `[B, ...]` of data and noise `[B, ...]`."""
        t = like(t, data)
        return self.alpha(t) * data + self.sigma(t) * noise

    def velocity_target(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """dx_t/dt `[B, ...]` of data and noise `[B, ...]`: what a velocity network regresses on (equation 4)."""
        t = like(t, data)
        return self.d_alpha(t) * data + self.d_sigma(t) * noise

    def renoise(self, x: Tensor, t: Tensor, to: Tensor, noise: Tensor) -> Tensor:
        """Carry x_t to an earlier time by the forward process; exact in distribution.

        x' = r x + sqrt(sigma(to)^2 - r^2 sigma(t)^2) noise, r = alpha(to) / alpha(t): the mean keeps its data and
        the variance is what is missing at `to`. (Ma et al. 2025, arXiv 2501.09732, search over paths.)

        Args:
            x: `[B, ...]`, a sample of the marginal at `t`.
            t: `[B]` or scalar, in (0, 1].
            to: `[B]` or scalar, in [0, t].
            noise: `[B, ...]`, N(0, 1).

        Raises:
            ValueError: somewhere `to > t`, as data cannot be made of noise.
        """
        if bool((to > t).any()):
            raise ValueError(f"can only re-noise to an earlier time, not from t={t.tolist()} to {to.tolist()}")
        t, to = like(t, x), like(to, x)
        ratio = self.alpha(to) / self.alpha(t).clamp(min=FLOOR)
        variance = self.sigma(to).square() - (ratio * self.sigma(t)).square()
        return ratio * x + variance.clamp(min=0).sqrt() * noise

    @abstractmethod
    def time_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The time at which alpha(t) / sigma(t) is this ratio (the nearest end, where no time has it).

        Args:
            alpha, sigma: coefficients of another path, at least 0 and not both 0.
        """

    # --- the forward SDE -----------------------------------------------------------------------------------------

    def drift_variance(self, t: Tensor) -> Tensor:
        """Half its squared diffusion, sigma lambda (the SBDM diffusion form).

        v = drift_variance * score - drift, with the drift -d_log_alpha x: its time runs from data to noise.
        """
        return self.sigma(t) * self.noise_rate(t)

    # --- conversions ---------------------------------------------------------------------------------------------

    def convert(self, value: Tensor, x: Tensor, t: Tensor, source: str, target: str) -> Tensor:
        """What a network's `source` prediction at `(x, t)` says of `target`.

        Args:
            value: `[B, ...]`, the prediction.
            x: `[B, ...]`, x_t.
            t: `[B]` in [0, 1].
            source, target: `velocity`, `score`, `noise` (E) or `data` (D). All four determine each other through
                x = alpha D + sigma E, v = d_alpha D + d_sigma E, score = -E / sigma.

        Returns:
            `[B, ...]`.

        Raises:
            ValueError: `source` or `target` is none of these.
        """
        for kind in (source, target):
            if kind not in PREDICTIONS:
                raise ValueError(f"a prediction is one of {', '.join(PREDICTIONS)}, not {kind!r}")
        if source == target:
            return value
        t = like(t, x)
        if target == "data":
            return self._data(value, x, t, source)
        if target == "velocity" and source == "data":
            noise = self._noise(value, x, t, source)
            return self.d_alpha(t) * value + self.d_sigma(t) * noise
        if target == "velocity" and source == "score":
            return self.drift_variance(t) * value + self.d_log_alpha(t) * x
        noise = self._noise(value, x, t, source)
        if target == "noise":
            return noise
        if target == "score":
            return -noise / self.sigma(t).clamp(min=FLOOR)
        return self.d_log_alpha(t) * x - self.noise_rate(t) * noise

    def _noise(self, value: Tensor, x: Tensor, t: Tensor, source: str) -> Tensor:
        """E of another prediction; `t` is shaped like `x` already."""
        if source == "velocity":
            return self._noise_from_velocity(value, x, t)
        if source == "score":
            return -self.sigma(t) * value
        if source == "data":
            return (x - self.alpha(t) * value) / self.sigma(t).clamp(min=FLOOR)
        return value

    def _data(self, value: Tensor, x: Tensor, t: Tensor, source: str) -> Tensor:
        """D of another prediction."""
        if source == "velocity":
            return self._data_from_velocity(value, x, t)
        if source == "score":  # Tweedie's formula
            return (x + self.sigma(t).square() * value) / self.alpha(t).clamp(min=FLOOR)
        return (x - self.sigma(t) * value) / self.alpha(t).clamp(min=FLOOR)

    @abstractmethod
    def _noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Solve x = alpha D + sigma E, v = d_alpha D + d_sigma E for E without dividing by zero at either end."""

    @abstractmethod
    def _data_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The same for D."""


@dataclass(frozen=True)
class Linear(Interpolant):
    """alpha = t, sigma = 1 - t: rectified flow."""

    name: ClassVar[str] = "Linear"

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha + sigma)

    def _noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return x - t * velocity

    def _data_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return x + (1 - t) * velocity


@dataclass(frozen=True)
class GVP(Interpolant):
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2): generalised variance preserving."""

    name: ClassVar[str] = "GVP"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(t * math.pi / 2)

    def d_alpha(self, t: Tensor) -> Tensor:
        return math.pi / 2 * torch.cos(t * math.pi / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.cos(t * math.pi / 2)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin(t * math.pi / 2)

    def time_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.atan2(alpha, sigma) * (2 / math.pi)

    def _noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.sigma(t) * x - self.alpha(t) * velocity * (2 / math.pi)

    def _data_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.alpha(t) * x + self.sigma(t) * velocity * (2 / math.pi)


@dataclass(frozen=True)
class VP(Interpolant):
    """alpha^2 + sigma^2 = 1 with beta linear in time, as in score-based diffusion (Song et al., arXiv 2011.13456).

    log alpha = -(1-t)^2 (beta_max - beta_min) / 4 - (1-t) beta_min / 2. At t=0 alpha is small but not zero.

    Raises:
        ValueError: not 0 < beta_min <= beta_max.
    """

    name: ClassVar[str] = "VP"
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"needs 0 < beta_min <= beta_max, not {self.beta_min} and {self.beta_max}")

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * (1 - t) ** 2 * (self.beta_max - self.beta_min) - 0.5 * (1 - t) * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(t))

    def d_alpha(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.d_log_alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        # expm1 would be more exact near t=1 (by 2e-4 of sigma at 0.999 in float32), but the reference rounds like this.
        return torch.sqrt(1 - torch.exp(2 * self._log_alpha(t)))

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.alpha(t).square() * self.d_log_alpha(t) / self.sigma(t).clamp(min=FLOOR)

    def time_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        # With u = 1 - t: u^2 (beta_max - beta_min) / 4 + u beta_min / 2 = -log alpha, alpha normalised. The root is
        # written with the radical below, which also stands for beta_max = beta_min and loses nothing near u = 0.
        level = torch.log(torch.hypot(alpha, sigma) / alpha.clamp(min=1e-30))
        slope = 0.5 * self.beta_min
        u = 2 * level / (slope + torch.sqrt(slope**2 + (self.beta_max - self.beta_min) * level))
        return 1 - u.clamp(0, 1)

    def d_log_alpha(self, t: Tensor) -> Tensor:
        """beta(t) / 2."""
        return 0.5 * (1 - t) * (self.beta_max - self.beta_min) + 0.5 * self.beta_min

    def noise_rate(self, t: Tensor) -> Tensor:
        """beta / (2 sigma), as alpha^2 + sigma^2 = 1."""
        return self.d_log_alpha(t) / self.sigma(t).clamp(min=FLOOR)

    def drift_variance(self, t: Tensor) -> Tensor:
        """beta / 2."""
        return self.d_log_alpha(t)

    def _noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.sigma(t) * (x - velocity / self.d_log_alpha(t))

    def _data_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.alpha(t) * x + self.sigma(t).square() / self.d_alpha(t) * velocity


INTERPOLANTS: dict[str, type[Linear] | type[GVP] | type[VP]] = {cls.name: cls for cls in (Linear, GVP, VP)}


def interpolant_named(name: str) -> Interpolant:
    """The interpolant of that name with its default parameters.

    Raises:
        ValueError: there is none.
    """
    if name not in INTERPOLANTS:
        raise ValueError(f"no interpolant named {name!r}; there are {', '.join(INTERPOLANTS)}")
    return INTERPOLANTS[name]()
